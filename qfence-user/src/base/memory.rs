//! The memory of this process.

/// Returns memory that was freed to the kernel. A start parses objects of some megabytes, and the C library would keep them
/// in the heaps of its threads (malloc_trim(3)). Other C libraries than GNU's return it by themselves, or never.
pub fn return_freed() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the function takes a number, and locks the heaps that it works on.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}
