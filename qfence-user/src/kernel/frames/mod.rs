//! Runs the programs for frames on the bytes of frames (`BPF_PROG_TEST_RUN`), with the maps of a fence. The tests need
//! root.

mod answers;
mod bed;
mod build;
mod changed;
mod control;
mod host_began;
mod judged;
mod recorded;
mod tagged;
