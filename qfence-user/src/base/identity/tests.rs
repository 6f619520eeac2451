use super::*;

fn sudo(uid: &str, gid: &str) -> Callers {
    Callers {
        uid: Some(uid.into()),
        gid: Some(gid.into()),
        ..Callers::default()
    }
}

#[test]
fn whoever_called_doas_or_pkexec_is_a_caller_and_two_are_an_error() {
    let doas = |name: &str| Callers {
        doas: Some(name.into()),
        ..Callers::default()
    };
    let pkexec = |uid: &str| Callers {
        pkexec: Some(uid.into()),
        ..Callers::default()
    };
    for callers in [
        doas("nobody"),
        pkexec("65534"),
        // The caller of sudo was root, who had been called by another.
        Callers {
            doas: Some("nobody".into()),
            ..sudo("0", "0")
        },
    ] {
        let nobody = resolve(None, &callers).unwrap().unwrap();
        assert_eq!(nobody.uid.as_raw(), 65534, "{callers:?}");
        assert_eq!(callers.user(), Some(nobody.uid));
    }
    for root in [doas("root"), pkexec("0")] {
        assert_eq!(resolve(None, &root).unwrap(), None);
    }
    let two = Callers {
        pkexec: Some("7".into()),
        ..doas("nobody")
    };
    assert!(matches!(
        resolve(None, &two),
        Err(IdentityError::TwoCallers(..))
    ));
    assert_eq!(two.user(), None);
    assert!(resolve(Some("nobody"), &two).is_ok());
    let unknown = IdentityError::NoUser("no-such-user".into());
    assert_eq!(resolve(None, &doas("no-such-user")), Err(unknown));
    let odd = IdentityError::PkexecUid("x".into());
    assert_eq!(resolve(None, &pkexec("x")), Err(odd));
}

#[test]
fn without_sudo_and_option_root_stays_root() {
    assert_eq!(resolve(None, &Callers::default()).unwrap(), None);
    assert_eq!(
        resolve(Some("root"), &sudo("65534", "65534")).unwrap(),
        None
    );
    assert_eq!(resolve(None, &sudo("0", "0")).unwrap(), None);
}

#[test]
fn root_with_a_group_is_of_that_group() {
    for spec in ["root:777", "0:777"] {
        let root = resolve(Some(spec), &Callers::default()).unwrap().unwrap();
        assert_eq!((root.uid.as_raw(), root.gid.as_raw()), (0, 777), "{spec}");
        assert_eq!(root.groups, [root.gid]);
    }
    assert!(resolve(Some("root:no-such-group"), &Callers::default()).is_err());
}

#[test]
fn what_the_kernel_takes_for_no_change_is_nobodys_id() {
    for spec in ["4294967295:1", "1:4294967295", "nobody:4294967295"] {
        let resolved = resolve(Some(spec), &Callers::default());
        assert_eq!(resolved, Err(IdentityError::NoId));
    }
    assert!(resolve(None, &sudo("4294967295", "1")).is_err());
}

#[test]
fn whoever_called_sudo_gets_their_own_back() {
    let nobody = resolve(None, &sudo("65534", "65534")).unwrap().unwrap();
    assert_eq!(nobody.uid.as_raw(), 65534);
    assert!(nobody.groups.contains(&nobody.gid));
    let value = |name| {
        nobody
            .environment
            .iter()
            .find(|(n, _)| *n == name)
            .and_then(|(_, value)| value.clone())
    };
    assert_eq!(value("USER"), Some("nobody".into()));
    assert_eq!(value("LOGNAME"), Some("nobody".into()));
    assert_eq!(value("HOME"), Some("/nonexistent".into()));
}

#[test]
fn ids_that_nobody_has_work_with_a_group() {
    let odd = resolve(Some("4242424:777"), &Callers::default())
        .unwrap()
        .unwrap();
    assert_eq!((odd.uid.as_raw(), odd.gid.as_raw()), (4_242_424, 777));
    assert_eq!(odd.groups, [odd.gid]);
}

#[test]
fn what_is_unknown_is_an_error_that_says_so() {
    let error = |spec| resolve(Some(spec), &Callers::default()).unwrap_err();
    for user in ["no-such-user", ""] {
        assert_eq!(error(user), IdentityError::NoUser(user.to_owned()));
    }
    let no_group = IdentityError::NoGroup("no-such-group".to_owned());
    assert_eq!(error("nobody:no-such-group"), no_group);
    let unknown = error("4242424");
    assert_eq!(unknown, IdentityError::UnknownId(Uid::from_raw(4_242_424)));
    assert!(unknown.to_string().ends_with("give --user 4242424:GID"));
    let odd = resolve(None, &sudo("x", "0"));
    assert_eq!(odd, Err(IdentityError::SudoUid("x".to_owned())));
}
