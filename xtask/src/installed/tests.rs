use std::collections::BTreeSet;

use super::*;

/// What is made, as small files.
pub(crate) fn made(dir: &Path) -> Made {
    let write = |name: &str| {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, name).unwrap();
        path
    };
    for name in [
        "pages/man/qfence-user.1",
        "pages/man/qfence-policy.5",
        "pages/completions/qfence-user.bash",
        "pages/completions/_qfence-user",
        "pages/completions/qfence.fish",
        "built/qfence-verify",
    ] {
        write(name);
    }
    Made {
        program: write("built/qfence-user"),
        pages: dir.join("pages"),
        manifest: "the manifest".to_owned(),
        copyright: "the copyright".to_owned(),
        licences: write("licences.txt"),
        sbom: None,
    }
}

#[test]
fn the_list_has_each_path_once_and_every_file_of_contrib() {
    let dir = tempfile::tempdir().unwrap();
    let rows = rows(&Layout::new(Path::new("/usr/local")), &made(dir.path())).unwrap();
    let paths: BTreeSet<_> = rows.iter().map(|row| row.path.clone()).collect();
    assert_eq!(paths.len(), rows.len());
    for path in [
        "bin/qfence",
        "bin/qfence-user",
        "bin/qfence-verify",
        "lib/systemd/system/qfence@.service",
        "lib/tmpfiles.d/qfence.conf",
        "share/bash-completion/completions/qfence",
        "share/bash-completion/completions/qfence-user",
        "share/doc/qfence/copyright",
        "share/doc/qfence/licences.txt.gz",
        "share/fish/vendor_completions.d/qfence.fish",
        "share/man/man1/qfence-user.1.gz",
        "share/man/man1/qfence.1.gz",
        "share/man/man5/qfence-policy.5.gz",
        "share/qfence/build.toml",
        "share/qfence/contrib/docker/qfence-runc",
        "share/qfence/profiles/host.toml",
        "share/zsh/site-functions/_qfence-user",
    ] {
        assert!(paths.contains(Path::new(path)), "{path}");
    }
    let contrib = files_in(&workspace::root().join("contrib")).unwrap().len();
    let of_contrib = |path: &&PathBuf| {
        ["share/qfence/contrib", "lib", "share/containers"]
            .iter()
            .any(|dir| path.starts_with(dir))
    };
    assert_eq!(paths.iter().filter(of_contrib).count(), contrib);
}

#[test]
fn the_files_of_contrib_name_qfence_where_it_is_installed() {
    let dir = tempfile::tempdir().unwrap();
    let rows = rows(&Layout::debian(), &made(dir.path())).unwrap();
    let content = |path: &str| {
        let row = rows.iter().find(|row| row.path == Path::new(path));
        row.unwrap().content.clone()
    };
    let Content::Text(unit) = content("lib/systemd/system/qfence@.service") else {
        panic!("no text");
    };
    assert!(
        unit.contains("ExecStart=/usr/bin/qfence-user attach"),
        "{unit}"
    );
    assert!(!unit.contains("/usr/local/bin/qfence-user"), "{unit}");
    let Content::Script(runtime) = content("share/qfence/contrib/docker/qfence-runc") else {
        panic!("no script");
    };
    assert!(runtime.contains("exec /usr/bin/qfence-user"), "{runtime}");
    let Content::Text(of_image) = content("share/qfence/contrib/kubernetes/qfence.yaml") else {
        panic!("no text");
    };
    assert!(of_image.contains("/usr/local/bin/qfence-user"));
    let zsh = Path::new("share/zsh/vendor-completions/_qfence-user");
    assert!(rows.iter().any(|row| row.path == zsh));
}

#[test]
fn what_is_installed_is_removed_and_what_is_others_stays() {
    let dir = tempfile::tempdir().unwrap();
    let prefix = dir.path().join("usr");
    let rows = with_list(rows(&Layout::new(&prefix), &made(dir.path())).unwrap());
    let other = prefix.join("share/man/man1/other.1");
    fs::create_dir_all(other.parent().unwrap()).unwrap();
    fs::write(&other, "").unwrap();
    // Twice: files that are there are replaced.
    for _twice in 0..2 {
        stage::write(&rows, &prefix, 1_000_000_000).unwrap();
    }
    let link = fs::read_link(prefix.join("bin/qfence")).unwrap();
    assert_eq!(link, Path::new("qfence-user"));
    let program = prefix.join("bin/qfence-user").metadata().unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&program.permissions());
    assert_eq!(mode & 0o7777, 0o755);
    let date = program.modified().unwrap();
    let since = date
        .duration_since(std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
    assert_eq!(since.as_secs(), 1_000_000_000);

    let list = read(&prefix.join(LIST)).unwrap();
    let paths: Vec<_> = list.lines().map(PathBuf::from).collect();
    assert_eq!(paths.len(), rows.len());
    let removed = stage::remove(&paths, &prefix).unwrap();
    assert_eq!(removed.len(), rows.len());
    assert_eq!(files_in(&prefix).unwrap(), [other]);
    assert!(!prefix.join("share/qfence").exists());
    assert!(!prefix.join("share/doc/qfence").exists());
    assert!(stage::remove(&paths, &prefix).unwrap().is_empty());
}

/// The targets of links in Markdown, without anchors; those to other hosts are left out.
fn links(text: &str) -> Vec<&str> {
    let inline = text.split("](").skip(1);
    let targets = inline.filter_map(|rest| rest.split([')', '#', ' ']).next());
    targets
        .filter(|target| !target.is_empty() && !target.contains("://"))
        .collect()
}

#[test]
fn the_links_of_installed_documents_lead_to_installed_files() {
    let dir = tempfile::tempdir().unwrap();
    for layout in [Layout::new(Path::new("/usr/local")), Layout::debian()] {
        let rows = rows(&layout, &made(dir.path())).unwrap();
        let paths: BTreeSet<_> = rows.iter().map(|row| row.path.clone()).collect();
        let mut count = 0;
        for row in &rows {
            let (Content::Text(text), Some("md")) = (
                &row.content,
                row.path.extension().and_then(|end| end.to_str()),
            ) else {
                continue;
            };
            for link in links(text) {
                let mut target = row.path.parent().unwrap().to_owned();
                for part in link.split('/') {
                    match part {
                        ".." => assert!(target.pop()),
                        "." => {}
                        name => target.push(name),
                    }
                }
                assert!(paths.contains(&target), "{}: {link}", row.path.display());
                count += 1;
            }
        }
        assert!(count > 50, "{count} links");
    }
}
