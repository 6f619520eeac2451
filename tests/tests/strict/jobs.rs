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

/// A server and its clients in other processes, by a socket in the directory for temporary files. There, a symbolic link
/// could lead to a socket outside.
#[test]
fn a_server_of_ones_own_is_reached_and_a_link_to_another_is_not_made() -> Result<()> {
    let script = r#"cat > job.py <<'END'
import multiprocessing, os, tempfile
if __name__ == "__main__":
    print(multiprocessing.Manager().list([1, 2])[1])
    directory = tempfile.mkdtemp()
    os.mkdir("d")
    os.symlink("/run", "d/link")
    for attempt in [
        lambda: os.symlink("/run", directory + "/link"),
        lambda: os.rename("d", directory + "/d"),
        lambda: os.link("d/link", directory + "/link", follow_symlinks=False),
    ]:
        try:
            attempt()
            print("done")
        except OSError as error:
            print(error.errno)
END
python3 job.py"#;
    let ended = job(script)?;
    // EACCES by Landlock, EXDEV by the mounts.
    assert_eq!(ended.stdout, "2\n13\n18\n18\n", "{ended:?}");
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
