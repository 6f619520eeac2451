//! Files by HTTP and HTTPS under the names of registries, and a log of the requests.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, bail};
use tests::{debian::run, namespace::Namespace, process::Process, run::wait_until, workspace};

/// The program, which needs nothing but Python.
const PROGRAM: &str = include_str!("server.py");

/// What is served, and its certificates.
#[derive(Debug)]
pub(super) struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    pub(super) fn new() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("qfence-site-").tempdir()?;
        workspace::make_readable(dir.path())?;
        fs::create_dir(dir.path().join("files"))?;
        Ok(Self { dir })
    }

    /// The path of `HOST/PATH`. The directory of it exists.
    pub(super) fn path(&self, file: &str) -> Result<PathBuf> {
        let path = self.dir.path().join("files").join(file);
        fs::create_dir_all(path.parent().context("a file has a directory")?)?;
        Ok(path)
    }

    /// Writes `HOST/PATH`.
    pub(super) fn write(&self, file: &str, text: &str) -> Result<()> {
        fs::write(self.path(file)?, text).with_context(|| format!("write {file}"))
    }

    /// The certificate of the authority that signs those of the servers.
    pub(super) fn authority(&self) -> PathBuf {
        self.dir.path().join("authority.pem")
    }

    /// Makes the authority, and a certificate for `names`.
    fn certify(&self, names: &[&str]) -> Result<()> {
        let dir = self.dir.path();
        let names: Vec<_> = names.iter().map(|name| format!("DNS:{name}")).collect();
        let names = format!("subjectAltName={}", names.join(","));
        let common = "req -x509 -nodes -days 2 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1";
        let make = |options: &str, extension: &str| {
            let words = common.split(' ').chain(options.split(' '));
            run("openssl", words.chain(["-addext", extension]), dir)
        };
        make(
            "-subj /CN=authority -keyout authority.key -out authority.pem -addext keyUsage=critical,keyCertSign",
            "basicConstraints=critical,CA:TRUE",
        )?;
        make(
            "-subj /CN=server -keyout server.key -out server.crt -CA authority.pem -CAkey authority.key \
             -addext basicConstraints=critical,CA:FALSE",
            &names,
        )?;
        let read = |name: &str| fs::read_to_string(dir.join(name));
        fs::write(
            dir.join("server.pem"),
            read("server.key")? + &read("server.crt")?,
        )?;
        Ok(())
    }
}

/// The running servers: HTTP at port 80 and HTTPS at port 443 of all addresses.
#[derive(Debug)]
pub(super) struct Server {
    process: Process,
    pub(super) site: Site,
}

impl Server {
    /// Starts them, and waits until they listen.
    pub(super) fn start(namespace: &Namespace, site: Site, names: &[&str]) -> Result<Self> {
        site.certify(names).context("make certificates")?;
        let dir = site.dir.path();
        let mut command = namespace.command("/usr/bin/python3");
        command
            .args(["-c", PROGRAM])
            .args([dir.join("files"), dir.join("server.pem")])
            .stdout(File::create(dir.join("log"))?)
            .stderr(Stdio::inherit());
        let process = Process::spawn(command)?;
        let mut server = Self { process, site };
        wait_until("the servers listen", || {
            if let Some(status) = server.process.wait(std::time::Duration::ZERO)? {
                bail!("the servers have ended: {status}");
            }
            Ok(server.log()?.starts_with("ready\n"))
        })?;
        Ok(server)
    }

    /// The requests so far, as `HOST PATH`.
    pub(super) fn requests(&self) -> Result<Vec<String>> {
        Ok(self.log()?.lines().skip(1).map(str::to_owned).collect())
    }

    fn log(&self) -> Result<String> {
        let log: &Path = &self.site.dir.path().join("log");
        fs::read_to_string(log).context("read the servers' log")
    }
}
