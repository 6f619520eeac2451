//! The closures that eBPF programs enforce: names of Unix sockets, local ports, devices. Each refusal has a control: the same
//! attempt succeeds without the fence.

mod devices;
mod hooks;
mod ports;
mod scene;
mod sockets;

const DONE: &str = "done";
