//! Audio: sound servers and cards.

use std::path::{Path, PathBuf};

use super::{collector::Collector, firmware::values};
use crate::qemu::{configuration::Item, parameters::Parameters};

/// Collects what one option needs.
pub(super) fn collect(item: &Item, needs: &mut Collector<'_>) {
    if matches!(item.group.as_str(), "audiodev" | "audio") {
        let driver = item.parameters.get("driver").unwrap_or_default();
        backend(driver, &item.parameters, needs);
    }
}

/// The driver of the environment, which QEMU before 8.2 uses if no option names one.
pub(super) fn collect_default(needs: &mut Collector<'_>) {
    let of_audio = |item: &Item| matches!(item.group.as_str(), "audiodev" | "audio");
    if needs.items.iter().any(of_audio) {
        return;
    }
    if let Some(driver) = needs.keep("QEMU_AUDIO_DRV") {
        let driver = driver.to_string_lossy();
        backend(&driver, &Parameters::default(), needs);
    }
}

fn backend(driver: &str, parameters: &Parameters, needs: &mut Collector<'_>) {
    match driver {
        "pa" => pulse(parameters.get("server"), needs),
        "pipewire" => pipewire(needs),
        "alsa" => alsa(needs),
        "oss" => {
            for key in ["in.dev", "out.dev"] {
                needs.write(parameters.get(key).unwrap_or("/dev/dsp"));
            }
        }
        // SDL chooses one of these itself.
        "sdl" => {
            needs.keep("SDL_AUDIODRIVER");
            pulse(None, needs);
            pipewire(needs);
            alsa(needs);
        }
        "wav" => needs.output(parameters.get("path").unwrap_or("qemu.wav")),
        _ => {}
    }
    values(parameters, &["logfile"], needs, Collector::output);
}

/// A client of PulseAudio: its server is a path, `unix:path`, or an address.
fn pulse(server: Option<&str>, needs: &mut Collector<'_>) {
    let runtime = needs.keep("XDG_RUNTIME_DIR");
    let from_environment = needs.keep("PULSE_SERVER");
    let server = server.or_else(|| from_environment.and_then(|server| server.to_str()));
    match server {
        // {machine}unix:path
        Some(server) => {
            let server = match server
                .strip_prefix('{')
                .and_then(|rest| rest.split_once('}'))
            {
                Some((_machine, server)) => server,
                None => server,
            };
            let path = server.strip_prefix("unix:").unwrap_or(server);
            if path.starts_with('/') {
                needs.connect(path);
            }
        }
        None => {
            let path = runtime.map(|runtime| Path::new(runtime).join("pulse/native"));
            connect(path, needs);
        }
    }
    match needs.keep("PULSE_COOKIE") {
        Some(file) => needs.read_if_present(Path::new(file)),
        None => {
            for file in [".config/pulse/cookie", ".pulse-cookie"] {
                if let Some(file) = needs.in_home(file) {
                    needs.read_if_present(&file);
                }
            }
        }
    }
}

fn pipewire(needs: &mut Collector<'_>) {
    let runtime = needs.keep("XDG_RUNTIME_DIR");
    let runtime = needs.keep("PIPEWIRE_RUNTIME_DIR").or(runtime);
    let remote = needs.keep("PIPEWIRE_REMOTE");
    let name = remote.map_or(Path::new("pipewire-0"), Path::new);
    connect(runtime.map(|runtime| Path::new(runtime).join(name)), needs);
}

fn alsa(needs: &mut Collector<'_>) {
    needs.write("/dev/snd");
    if let Some(file) = needs.in_home(".asoundrc") {
        needs.read_if_present(&file);
    }
}

fn connect(path: Option<PathBuf>, needs: &mut Collector<'_>) {
    if let Some(path) = path {
        needs.connect_name(path.into_os_string());
    }
}
