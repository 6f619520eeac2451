//! The closures that programs enforce: names of Unix sockets, local ports, devices. Each refusal has a control: the same attempt
//! without the fence is done.

mod devices;
mod hooks;
mod ports;
mod scene;
mod sockets;

const DONE: &str = "done";
