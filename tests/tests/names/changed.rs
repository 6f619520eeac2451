//! `set` changes rules by name: what it takes back is not reached any more, and queries on their way are answered.

use tests::world::GATEWAY_V4;

use super::*;

#[test]
fn set_adds_and_takes_back_names() -> Result<()> {
    let scene = Scene::new(&[("a.example.org", SERVER_V4), ("b.example.org", SERVER_V4)])?;
    let fence = locked("set-names", &["a.example.org"])?;
    let mut shell = scene.shell(&fence)?;
    let server = format!("tcp/{SERVER_V4}/{PORT}");
    assert_eq!(
        reply(&mut shell, "dns/127.0.0.53/b.example.org")?,
        "rcode 3"
    );
    scene.set(&fence, &["--allow", "b.example.org"])?;
    assert_eq!(
        reply(&mut shell, "dns/127.0.0.53/b.example.org")?,
        SERVER_V4.to_string()
    );
    assert!(one(&mut shell, &server)?.is_reached());
    scene.set(&fence, &["--deny", "b.example.org"])?;
    assert!(one(&mut shell, &server)?.failed_with("ECONNREFUSED"));
    assert_eq!(
        reply(&mut shell, "dns/127.0.0.53/b.example.org")?,
        "rcode 3"
    );
    assert_eq!(
        reply(&mut shell, "dns/127.0.0.53/a.example.org")?,
        SERVER_V4.to_string()
    );
    assert!(one(&mut shell, &server)?.is_reached());
    Ok(())
}

/// Two names below the star of a rule, and their addresses.
const BELOW: [(&str, IpAddr); 2] = [("a.example.org", SERVER_V4), ("b.example.org", GATEWAY_V4)];

/// A fence that has looked up [`BELOW`], and what reaches their addresses.
fn both_reached(scene: &Scene, label: &str) -> Result<(Fence, Shell, [String; 2])> {
    let fence = locked(label, &["*.example.org"])?;
    let mut shell = scene.shell(&fence)?;
    let attempts = BELOW.map(|(_, address)| format!("tcp/{address}/{PORT}"));
    for ((name, address), attempt) in BELOW.iter().zip(&attempts) {
        let answer = reply(&mut shell, &format!("dns/127.0.0.53/{name}"))?;
        assert_eq!(answer, address.to_string());
        let result = one(&mut shell, attempt)?;
        assert!(result.is_reached(), "{result:?}\n{}", shell.stderr());
    }
    Ok((fence, shell, attempts))
}

#[test]
fn an_address_is_taken_back_with_its_name_when_set_returns() -> Result<()> {
    let scene = Scene::new(&BELOW)?;
    let (fence, mut shell, [first, second]) = both_reached(&scene, "set-star")?;
    // The rule with the star stays.
    scene.set(&fence, &["--deny", "a.example.org"])?;
    assert!(one(&mut shell, &first)?.failed_with("ECONNREFUSED"));
    assert!(one(&mut shell, &second)?.is_reached());
    Ok(())
}

#[test]
fn without_a_supervisor_set_takes_addresses_back_and_warns() -> Result<()> {
    let scene = Scene::new(&BELOW)?;
    let (fence, mut shell, [first, second]) = both_reached(&scene, "set-orphan")?;
    let path = format!("/run/qfence/{}.names", fence.name());
    wait_until("the names are stored", || {
        Ok(std::fs::read_to_string(&path)?.contains("b.example.org"))
    })?;
    shell.kill_supervisor()?;
    let warned = scene.set(&fence, &["--deny", "a.example.org"])?;
    assert!(warned.contains("no name is looked up any more"), "{warned}");
    assert!(one(&mut shell, &first)?.failed_with("ECONNREFUSED"));
    assert!(one(&mut shell, &second)?.is_reached());
    Ok(())
}

/// Connects to a nameserver and to a server. After a line of input, says how the two are.
const CONNECTED: &str = r#"
import socket, sys
query = bytes.fromhex("51fe01000001000000000000") + b"\1a\7example\3org\0\0\1\0\1"
asks = socket.create_connection(("198.51.100.99", 53), 60)
server = socket.create_connection((sys.argv[1], int(sys.argv[2])), 60)
print("connected", flush=True)
sys.stdin.readline()
def is_open(s, text):
    try:
        s.sendall(text)
        s.recv(2)
        return "open"
    except ConnectionError as error:
        return type(error).__name__
print(is_open(asks, len(query).to_bytes(2, "big") + query), is_open(server, b"?"), flush=True)
"#;

#[test]
fn set_ends_no_connection_to_the_resolver() -> Result<()> {
    let scene = Scene::new(&BELOW)?;
    let (fence, mut shell, _) = both_reached(&scene, "set-query")?;
    shell.tell(&format!("python3 -c '{CONNECTED}' {GATEWAY_V4} {PORT}"))?;
    assert_eq!(shell.next_line()?, "connected");
    // The control: what the new policy denies is ended.
    let said = scene.set(&fence, &["--deny", "b.example.org"])?;
    let ended: Vec<&str> = said.lines().filter(|line| line.contains("ended")).collect();
    assert_eq!(ended.len(), 1, "{said}");
    assert!(ended[0].contains(&GATEWAY_V4.to_string()), "{said}");
    shell.tell("")?;
    // The resolver itself ends a connection that was silent for ten seconds, which is no error of the connection.
    assert_eq!(shell.next_line()?, "open ConnectionAbortedError");
    Ok(())
}
