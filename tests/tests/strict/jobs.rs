//! `--strict --allow-write .` is a working sandbox for compilers and their like.

use std::{fs, os::unix::fs::chown, process::Command};

use anyhow::Result;
use tests::{
    fence::Fence,
    namespace::NOBODY,
    run::{Ended, fenced, to_end},
    workspace,
};

/// Runs a script in a directory of its own, in a strict fence that may change this directory.
fn job(script: &str) -> Result<Ended> {
    let directory = tempfile::tempdir_in("/var/tmp")?;
    workspace::make_readable(directory.path())?;
    let work = directory.path().join("work");
    fs::create_dir(&work)?;
    chown(&work, Some(NOBODY.uid), Some(NOBODY.gid))?;
    let fence =
        Fence::new("strict-job")?.with(&["--user", "nobody", "--strict", "--allow-write", "."]);
    let script = format!("set -e; export HOME=$PWD; {script}");
    let mut command: Command = fenced(&fence, &["sh", "-c", &script]);
    command.current_dir(&work);
    to_end(command)
}

#[test]
fn a_compiler_works() -> Result<()> {
    let script = r#"printf '#include <stdio.h>\nint main(void) { puts("compiled"); return 0; }\n' > a.c; cc -O2 -pipe -o a a.c; ./a"#;
    let ended = job(script)?;
    assert_eq!(ended.stdout, "compiled\n", "{ended:?}");
    Ok(())
}

#[test]
fn git_works() -> Result<()> {
    let script = "git init -q one; cd one; echo text > file; git add file; \
        git -c user.name=a -c user.email=b commit -q -m x; cd ..; git clone -q one two; cat two/file; chmod 700 two/file; mv two three";
    let ended = job(script)?;
    assert_eq!(
        (ended.code(), &*ended.stdout),
        (Some(0), "text\n"),
        "{ended:?}"
    );
    Ok(())
}

/// Processes with semaphores and queues, temporary files, sockets of their own.
#[test]
fn python_works() -> Result<()> {
    let script = r#"cat > job.py <<'END'
import multiprocessing, os, socket, tempfile
if __name__ == "__main__":
    print(multiprocessing.Pool(2).map(abs, [-1, 2]))
    with tempfile.NamedTemporaryFile() as file:
        os.chmod(file.name, 0o600)
        os.utime(file.name)
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen()
    pair = socket.socketpair()
    pair[0].send(b"y")
    print(pair[1].recv(1))
END
python3 job.py"#;
    let fence = job(script)?;
    assert!(fence.stdout.starts_with("[1, 2]\nb'y'\n"), "{fence:?}");
    Ok(())
}
