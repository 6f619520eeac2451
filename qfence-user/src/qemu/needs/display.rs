//! Windows on the user's display, and rendering by a graphics card.

use std::{ffi::OsString, path::Path};

use super::{
    collector::Collector,
    firmware::values,
    refused::{BUS, SPICE_APP},
    servers,
};

/// The graphics cards.
pub(super) const CARDS: &str = "/dev/dri";

/// Collects what the display needs. The last option counts; without one QEMU opens a window, unless it has VNC or SPICE.
pub(super) fn collect(needs: &mut Collector<'_>) {
    let (items, mut last, mut is_remote) = (needs.items, None, false);
    for item in items {
        let kind = match item.group.as_str() {
            "display" if item.parameters.get("vnc").is_some() => "vnc",
            "display" => item.parameters.get("type").unwrap_or_default(),
            "nographic" => "none",
            group @ ("sdl" | "curses") => group,
            group @ ("vnc" | "spice") => {
                is_remote = true;
                if group == "spice" && item.parameters.is_on("gl") == Some(true) {
                    render(needs);
                    values(&item.parameters, &["rendernode"], needs, Collector::write);
                }
                continue;
            }
            _ => continue,
        };
        last = Some((kind, item));
    }
    let Some((kind, item)) = last.filter(|(kind, _)| *kind != "default") else {
        if !is_remote {
            default(needs);
        }
        return;
    };
    needs.item = Some(item);
    values(&item.parameters, &["rendernode"], needs, Collector::write);
    match kind {
        "gtk" | "sdl" => window(needs),
        "egl-headless" => render(needs),
        "spice-app" => needs.refuse(&SPICE_APP),
        "dbus" => {
            if item.parameters.is_on("p2p") != Some(true) {
                needs.refuse(&BUS);
            }
            if matches!(item.parameters.get("gl"), Some("on" | "es" | "core")) {
                render(needs);
            }
        }
        _ => {}
    }
}

/// A window if there is a display, otherwise VNC.
fn default(needs: &mut Collector<'_>) {
    let is_there = |name: &str| needs.variable(name).is_some();
    if is_there("DISPLAY") || is_there("WAYLAND_DISPLAY") {
        window(needs);
    } else {
        servers::default_vnc(needs);
    }
}

/// A client of X11 or Wayland.
pub(super) fn window(needs: &mut Collector<'_>) {
    let runtime = needs.keep("XDG_RUNTIME_DIR");
    if let Some(display) = needs.keep("DISPLAY") {
        // Only the path: libxcb tries it after the abstract name was refused.
        if let Some(number) = display.to_str().and_then(x_display) {
            needs.connect_name(format!("/tmp/.X11-unix/X{number}").into());
        }
        match needs.keep("XAUTHORITY") {
            Some(file) => needs.read_if_present(Path::new(file)),
            None => {
                if let Some(file) = needs.in_home(".Xauthority") {
                    needs.read_if_present(&file);
                }
            }
        }
    }
    if let (Some(socket), Some(runtime)) = (needs.keep("WAYLAND_DISPLAY"), runtime) {
        // An absolute name replaces the directory.
        let path = Path::new(runtime).join(socket);
        needs.connect_name(OsString::from(path));
    }
    needs.needs.grants.shared_memory = true;
    render(needs);
}

fn render(needs: &mut Collector<'_>) {
    needs.write_if_present(Path::new(CARDS));
}

/// The number of a display of this host: `:N`, `unix:N`, `:N.SCREEN`.
fn x_display(text: &str) -> Option<u32> {
    let number = text
        .strip_prefix("unix:")
        .or_else(|| text.strip_prefix(':'))?;
    number.split('.').next()?.parse().ok()
}
