//! The memory of this process.

use std::ptr;

use nix::libc::{self, PF_W, PT_LOAD, c_int, c_void, dl_phdr_info, size_t};

/// Returns memory that a start has used and a supervisor at rest does not.
pub fn return_unused() {
    return_freed();
    drop_code();
}

/// Returns memory that was freed to the kernel. A start parses objects of some megabytes, and the C library would keep them
/// in the heaps of its threads (malloc_trim(3)). Other C libraries than GNU's return it by themselves, or never.
fn return_freed() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the function takes a number, and locks the heaps that it works on.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Unmaps the pages of the program that nothing has changed: its code and constants. They come back from the page cache, or
/// from the file, when they are used (madvise(2), MADV_DONTNEED). A start uses most of them, a supervisor at rest a part.
fn drop_code() {
    // SAFETY: the function calls `drop_code_of` with valid arguments, and takes no data.
    unsafe { libc::dl_iterate_phdr(Some(drop_code_of), ptr::null_mut()) };
}

/// Unmaps those of one object. Returns 1, so that no other follows: the first is the program.
unsafe extern "C" fn drop_code_of(
    info: *mut dl_phdr_info,
    _size: size_t,
    _data: *mut c_void,
) -> c_int {
    // SAFETY: the C library passes a description that is valid during the call.
    let info = unsafe { &*info };
    let count = usize::from(info.dlpi_phnum);
    // SAFETY: it has this many headers, mapped as long as the object.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, count) };
    for header in headers {
        // What can be written, or could be when it was relocated (RELRO), is not the same in the file.
        if header.p_type != PT_LOAD || header.p_flags & PF_W != 0 {
            continue;
        }
        let (Ok(start), Ok(length)) = (
            usize::try_from(info.dlpi_addr.wrapping_add(header.p_vaddr)),
            usize::try_from(header.p_filesz),
        ) else {
            continue;
        };
        let Some((start, length)) = whole_pages(start, length) else {
            continue;
        };
        // SAFETY: the range is of a private mapping of the executable, and the program is linked without relocations in its
        // code. So each page has the same bytes again, if nobody writes to the file. That is so for every page that was not
        // used yet: the kernel refuses such writes to a running program (ETXTBSY), but not on Linux 6.11, nor on other
        // machines with the same network file system. Packages replace the file. If the kernel refuses, the pages stay.
        unsafe {
            libc::madvise(
                ptr::with_exposed_provenance_mut(start),
                length,
                libc::MADV_DONTNEED,
            )
        };
    }
    1
}

/// The whole pages of a range: their start and length.
fn whole_pages(start: usize, length: usize) -> Option<(usize, usize)> {
    let page = rustix::param::page_size();
    let first = start.checked_next_multiple_of(page)?;
    let end = start.checked_add(length)? / page * page;
    (first < end).then(|| (first, end - first))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The resident memory of files, in kB.
    fn of_files() -> u64 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssFile:"));
        let figure = line.unwrap().trim().trim_end_matches(" kB");
        figure.parse().unwrap()
    }

    #[test]
    fn code_goes_and_comes_back() {
        let before = of_files();
        return_unused();
        let after = of_files();
        assert!(after < before, "{before} kB, then {after} kB");
        // Code that was not executed since runs.
        assert_eq!(format!("{:.3}", 1.0_f64.exp().sqrt()), "1.649");
    }

    #[test]
    fn only_whole_pages_are_unmapped() {
        let page = rustix::param::page_size();
        assert_eq!(whole_pages(1, page), None);
        assert_eq!(whole_pages(page - 1, page + 1), Some((page, page)));
        assert_eq!(whole_pages(page, 3 * page - 1), Some((page, 2 * page)));
        assert_eq!(whole_pages(usize::MAX, page), None);
    }
}
