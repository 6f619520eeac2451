//! Adds hooks to the configuration of a bundle, for engines that have no hooks of their own.

use serde_json::{Map, Value, json};

/// The hook that fences, and the one that removes the fence.
pub const STAGES: [&str; 2] = ["createRuntime", "poststop"];

/// Why hooks cannot be added.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// It is no JSON.
    #[error("the configuration of the bundle is no JSON")]
    Parse(#[from] serde_json::Error),
    /// A part of it is something else than the specification says.
    #[error("{0} of the bundle's configuration is not what the OCI specification says")]
    Unexpected(String),
    /// A plugin of the Node Resource Interface has added the command with other options.
    #[error(
        "a plugin has added qfence's hook with the options [{theirs}], and those of this runtime are [{ours}]: both policies \
         cannot hold, so give both the same options, or give the container no annotation of qfence's"
    )]
    Differs {
        /// The options of the plugin.
        theirs: String,
        /// The options of this runtime.
        ours: String,
    },
}

/// A command that is a hook; the name of the stage follows its arguments.
#[derive(Clone, Copy, Debug)]
pub struct Command<'a> {
    /// The path of the executable.
    pub path: &'a str,
    /// The first arguments, after the name of the executable.
    pub arguments: &'a [&'a str],
    /// Further arguments, after the stage.
    pub options: &'a [String],
}

impl Command<'_> {
    /// Its words at a stage, with the path.
    #[must_use]
    pub fn words(&self, stage: &str) -> Vec<String> {
        let mut words = self.without_options(stage);
        // The fence has its policy from the first stage.
        if stage == STAGES[0] {
            words.extend(self.options.iter().cloned());
        }
        words
    }

    fn without_options(&self, stage: &str) -> Vec<String> {
        let mut words = vec![self.path.to_owned()];
        words.extend(self.arguments.iter().map(ToString::to_string));
        words.push(stage.to_owned());
        words
    }

    /// The options of a hook with a path and words, if it is this command at a stage. Only the name of the executable is
    /// compared: it has several paths where a directory is a link, or is mounted elsewhere.
    pub fn options_of<'a, Word: PartialEq<String>>(
        &self,
        path: &str,
        words: &'a [Word],
        stage: &str,
    ) -> Option<&'a [Word]> {
        let ours = self.without_options(stage);
        let (begins, options) = words.split_at_checked(ours.len())?;
        let is_ours = name(path) == name(self.path) && begins.get(1..)? == ours.get(1..)?;
        is_ours.then_some(options)
    }

    /// The options of a hook of a bundle, if it is this command at a stage.
    fn of_hook<'a>(&self, hook: &'a Value, stage: &str) -> Option<&'a [Value]> {
        let words = hook["args"].as_array()?;
        self.options_of(hook["path"].as_str()?, words, stage)
    }

    /// The options of the hook that is this command at the first stage, if they are not these.
    fn other_options(&self, hooks: &[Value]) -> Option<String> {
        let mut hooks = hooks.iter();
        let other = hooks.find_map(|hook| {
            let options = self.of_hook(hook, STAGES[0])?;
            (options != self.options).then_some(options)
        })?;
        let words: Vec<_> = other.iter().filter_map(Value::as_str).collect();
        Some(words.join(" "))
    }
}

/// The configuration of a bundle, `config.json`, with the command as its last hook of createRuntime and its first one of
/// poststop. It replaces the same command of a plugin of the Node Resource Interface.
///
/// # Errors
/// If the configuration is not what the specification says, or that command has other options.
pub fn with_hooks(config: &[u8], command: &Command<'_>) -> Result<Vec<u8>, BundleError> {
    let mut config: Value = serde_json::from_slice(config)?;
    let unexpected = |part: &str| BundleError::Unexpected(part.to_owned());
    let members = config
        .as_object_mut()
        .ok_or_else(|| unexpected("the whole"))?;
    let hooks = member(members, "hooks", || Value::Object(Map::new()));
    let hooks = hooks.as_object_mut().ok_or_else(|| unexpected("hooks"))?;
    for stage in STAGES {
        let list = member(hooks, stage, || Value::Array(Vec::new()));
        let list = list
            .as_array_mut()
            .ok_or_else(|| unexpected(&format!("hooks.{stage}")))?;
        // Neither policy is known to be the stricter one, and whoever makes pods chooses the runtime.
        if stage == STAGES[0]
            && let Some(theirs) = command.other_options(list)
        {
            let ours = command.options.join(" ");
            return Err(BundleError::Differs { theirs, ours });
        }
        list.retain(|hook| command.of_hook(hook, stage).is_none());
        let hook = json!({ "path": command.path, "args": command.words(stage) });
        // Hooks before it may still change the container's network.
        let place = if stage == STAGES[0] { list.len() } else { 0 };
        list.insert(place, hook);
    }
    Ok(serde_json::to_vec(&config)?)
}

/// The last part of a path.
fn name(path: &str) -> Option<&str> {
    path.rsplit('/').next()
}

/// A member of an object; an empty one is made if it is missing or null.
fn member<'a>(
    members: &'a mut Map<String, Value>,
    name: &str,
    empty: fn() -> Value,
) -> &'a mut Value {
    let member = members.entry(name).or_insert_with(empty);
    if member.is_null() {
        *member = empty();
    }
    member
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(config: &Value) -> Result<Value, BundleError> {
        let command = Command {
            path: "/usr/local/bin/qfence-user",
            arguments: &["oci-hook"],
            options: &["--profile=internet-only".to_owned()],
        };
        let written = with_hooks(config.to_string().as_bytes(), &command)?;
        Ok(serde_json::from_slice(&written)?)
    }

    fn ours(stage: &str, options: &[&str]) -> Value {
        let mut args = vec!["/usr/local/bin/qfence-user", "oci-hook", stage];
        args.extend(options);
        json!({ "path": "/usr/local/bin/qfence-user", "args": args })
    }

    #[test]
    fn hooks_are_added_and_the_rest_is_as_it_was() {
        let docker = json!({ "path": "/proc/1/exe", "args": ["libnetwork-setkey"] });
        let other = json!({ "path": "/bin/other" });
        let config = json!({
            "ociVersion": "1.0.2",
            "linux": { "cgroupsPath": "/docker/ab" },
            "hooks": { "prestart": [docker], "createRuntime": [other], "poststop": [other] },
        });
        let written = with(&config).unwrap();
        let create = ours("createRuntime", &["--profile=internet-only"]);
        let stop = ours("poststop", &[]);
        assert_eq!(
            written["hooks"],
            json!({
                "prestart": [docker],
                "createRuntime": [other, create],
                "poststop": [stop, other],
            })
        );
        assert_eq!(written["linux"], config["linux"]);
        // A second time nothing is added.
        assert_eq!(with(&written).unwrap(), written);
    }

    #[test]
    fn the_hook_of_a_plugin_is_replaced_by_that_of_the_runtime() {
        let create = ours("createRuntime", &["--profile=internet-only"]);
        let stop = ours("poststop", &[]);
        let plugins = create.clone();
        // Where /usr/local is a link.
        let mut linked = plugins.clone();
        linked["path"] = json!("/var/usrlocal/bin/qfence-user");
        linked["args"][0] = json!("qfence-user");
        let mut foreign = plugins.clone();
        foreign["path"] = json!("/usr/local/bin/qfence");
        let config = json!({
            "hooks": { "createRuntime": [plugins, linked, foreign], "poststop": [stop] },
        });
        let written = with(&config).unwrap();
        assert_eq!(
            written["hooks"],
            json!({ "createRuntime": [foreign, create], "poststop": [stop] })
        );
    }

    #[test]
    fn a_plugin_and_a_runtime_with_different_policies_start_no_container() {
        for options in [&["--profile=host", "--deny", "lan"][..], &[]] {
            let plugins = ours("createRuntime", options);
            let other = json!({ "path": "/bin/other" });
            let config = json!({ "hooks": { "createRuntime": [other, plugins] } });
            let refused = with(&config).unwrap_err();
            assert!(
                matches!(&refused, BundleError::Differs { theirs, ours }
                    if *theirs == options.join(" ") && ours == "--profile=internet-only"),
                "{refused}"
            );
        }
    }

    #[test]
    fn a_bundle_without_hooks_gets_them() {
        for config in [
            json!({}),
            json!({ "hooks": null }),
            json!({ "hooks": { "createRuntime": null } }),
        ] {
            let written = with(&config).unwrap();
            assert_eq!(
                written["hooks"]["createRuntime"].as_array().unwrap().len(),
                1
            );
            assert_eq!(written["hooks"]["poststop"].as_array().unwrap().len(), 1);
        }
    }

    #[test]
    fn what_is_no_configuration_is_an_error() {
        for config in [
            json!([]),
            json!({ "hooks": [] }),
            json!({ "hooks": { "poststop": 1 } }),
        ] {
            assert!(
                matches!(with(&config), Err(BundleError::Unexpected(_))),
                "{config}"
            );
        }
        let command = Command {
            path: "/x",
            arguments: &[],
            options: &[],
        };
        assert!(with_hooks(b"{", &command).is_err());
    }
}
