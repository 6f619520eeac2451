use super::*;

const X11: [(&str, &str); 3] = [
    ("DISPLAY", ":1.0"),
    ("XAUTHORITY", "/run/xauth"),
    ("XDG_RUNTIME_DIR", "/run/user/7"),
];
const WAYLAND: [(&str, &str); 2] = [
    ("WAYLAND_DISPLAY", "wayland-0"),
    ("XDG_RUNTIME_DIR", "/run/user/7"),
];

const WITH_X11: &str = "read /run/xauth, write /dev/dri, connect /tmp/.X11-unix/X1, keep DISPLAY, \
     keep XAUTHORITY, keep XDG_RUNTIME_DIR, shared memory";
const WITH_WAYLAND: &str = "write /dev/dri, connect /run/user/7/wayland-0, keep WAYLAND_DISPLAY, \
     keep XDG_RUNTIME_DIR, shared memory";
const VNC: &str = "listen tcp:5900-5999";

/// The needs of a QEMU with these arguments in an environment.
fn needs_in(environment: &[(&str, &str)], arguments: &str) -> String {
    let needs = command(&format!("kvm -m 1 {arguments}"), environment, &Closure::ALL).unwrap();
    assert_eq!(needs.refused, [], "{arguments}");
    line(&needs)
}

#[test]
fn a_window_needs_the_display_of_the_environment() {
    for arguments in [
        "-display gtk,gl=on",
        "-display sdl",
        "-sdl",
        "-nographic -display gtk",
        "-nodefaults",
        "-display default",
    ] {
        assert_eq!(needs_in(&X11, arguments), WITH_X11, "{arguments}");
        assert_eq!(needs_in(&WAYLAND, arguments), WITH_WAYLAND, "{arguments}");
    }
    let absolute = [
        ("WAYLAND_DISPLAY", "/w"),
        ("XDG_RUNTIME_DIR", "/run/user/7"),
    ];
    assert!(needs_in(&absolute, "-display gtk").contains("connect /w,"));
    for (display, socket) in [
        (":0", Some("/tmp/.X11-unix/X0")),
        ("unix:3", Some("/tmp/.X11-unix/X3")),
        ("host:0", None),
        (":", None),
        (":x", None),
    ] {
        let needs = needs_in(&[("DISPLAY", display)], "-display gtk");
        assert!(needs.starts_with("read /home/u/.Xauthority"), "{needs}");
        let connects = socket.map(|socket| format!("connect {socket},"));
        assert_eq!(
            needs.contains("connect"),
            connects.as_ref().is_some_and(|text| needs.contains(text)),
            "{display}"
        );
        assert_eq!(needs.contains("connect"), connects.is_some(), "{display}");
    }
}

#[test]
fn without_a_window_the_display_is_closed() {
    for arguments in [
        "-nographic",
        "-display none",
        "-display curses",
        "-curses",
        "-display gtk -nographic",
        "-vnc none",
    ] {
        assert_eq!(needs_in(&X11, arguments), "", "{arguments}");
    }
    assert_eq!(needs_in(&X11, "-vnc :1"), "listen tcp:5901");
    assert_eq!(needs_in(&X11, "-spice port=5930"), "listen tcp:5930");
    assert_eq!(
        needs_in(&X11, "-vnc :1 -display gtk")
            .matches("/X1")
            .count(),
        1
    );
    let rendered = "write /dev/dri";
    assert_eq!(needs_in(&X11, "-display egl-headless"), rendered);
    assert_eq!(needs_in(&X11, "-display dbus,p2p=on,gl=on"), rendered);
    let spice = "-spice gl=on,unix=on,addr=/run/vm/s,rendernode=/dev/dri/renderD128";
    assert_eq!(
        needs_in(&X11, spice),
        "write /dev/dri, write /dev/dri/renderD128, make /run/vm"
    );
}

#[test]
fn qemu_chooses_vnc_where_there_is_no_display() {
    assert_eq!(needs_in(&[], ""), VNC);
    assert_eq!(needs_in(&[("DISPLAY", "")], ""), VNC);
    assert_eq!(needs_in(&[], "-vnc :1"), "listen tcp:5901");
    assert_eq!(needs_in(&[], "-display none"), "");
}

#[test]
fn sound_servers_and_cards() {
    let runtime = [("XDG_RUNTIME_DIR", "/run/user/7")];
    let pulse =
        "read /home/u/.config/pulse/cookie, connect /run/user/7/pulse/native, keep XDG_RUNTIME_DIR";
    let mut with_environment = runtime.to_vec();
    with_environment.extend([
        ("PULSE_SERVER", "unix:/p"),
        ("PULSE_COOKIE", "/home/u/cookie"),
    ]);
    for (environment, arguments, expected) in [
        (&runtime[..], "-audiodev pa,id=a", pulse),
        (&runtime, "-audio pa,model=hda", pulse),
        (&runtime, r#"-audiodev {"driver":"pa","id":"a"}"#, pulse),
        (
            &runtime,
            "-audiodev pa,id=a,server=unix:/s",
            "read /home/u/.config/pulse/cookie, connect /s, keep XDG_RUNTIME_DIR",
        ),
        (
            &with_environment,
            "-audiodev pa,id=a",
            "read /home/u/cookie, connect /p, keep PULSE_COOKIE, keep PULSE_SERVER, keep XDG_RUNTIME_DIR",
        ),
        (
            &runtime,
            "-audiodev pipewire,id=a",
            "connect /run/user/7/pipewire-0, keep XDG_RUNTIME_DIR",
        ),
        (&[], "-audiodev pipewire,id=a -audiodev none,id=b", ""),
        (
            &[],
            "-audiodev alsa,id=a",
            "read /home/u/.asoundrc, write /dev/snd",
        ),
        (
            &[],
            "-audiodev oss,id=a,out.dev=/dev/dsp1",
            "write /dev/dsp, write /dev/dsp1",
        ),
        (
            &[("QEMU_AUDIO_DRV", "alsa")],
            "",
            "read /home/u/.asoundrc, write /dev/snd, keep QEMU_AUDIO_DRV",
        ),
        (&[("QEMU_AUDIO_DRV", "alsa")], "-audiodev none,id=a", ""),
    ] {
        assert_eq!(
            needs_in(environment, format!("-display none {arguments}").trim_end()),
            expected,
            "{arguments}"
        );
    }
    let sdl = needs_in(&runtime, "-display none -audiodev sdl,id=a");
    for part in ["pulse/native", "pipewire-0", "/dev/snd"] {
        assert!(sdl.contains(part), "{sdl}");
    }
}
