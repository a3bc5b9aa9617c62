//! `statx(2)` for programs in a sandbox whose kernel is a gVisor that refuses the flag with which `ls` and `stat` call it.
//! The loader puts it before that of the C library, in such sandboxes alone. There is nothing to mount by itself in one.

#![no_std]

use core::ffi::{c_char, c_int, c_long, c_uint, c_void};

/// The number of the call.
#[cfg(target_arch = "x86_64")]
const STATX: c_long = 332;
#[cfg(not(target_arch = "x86_64"))]
const STATX: c_long = 291;

const AT_NO_AUTOMOUNT: c_int = 0x800;

unsafe extern "C" {
    /// The C library's, which sets `errno`.
    fn syscall(number: c_long, ...) -> c_long;
}

/// As in statx(2).
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn statx(
    directory: c_int,
    path: *const c_char,
    flags: c_int,
    mask: c_uint,
    into: *mut c_void,
) -> c_int {
    // SAFETY: the arguments are the caller's, who keeps to what the call asks for.
    unsafe { syscall(STATX, directory, path, flags & !AT_NO_AUTOMOUNT, mask, into) as c_int }
}

#[panic_handler]
fn never(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
