//! Whole databases: read through the engine's own handle, replaced in one transaction, laid beside each other.
//!
//! A file that the engine has open must not be opened by anybody else in this process: closing it would give up
//! the engine's locks (<https://www.sqlite.org/howtocorrupt.html>, 2.2).

use std::ffi::{CString, c_int, c_void};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr::{NonNull, null, null_mut};

use libsqlite3_sys as sys;
use sqlx::sqlite::LockedSqliteHandle;

use super::{Role, authorize};

/// How many bytes are read at a time.
const CHUNK: usize = 1 << 20;

/// Why a whole database could not be read or replaced.
#[derive(Debug)]
pub(in crate::database) enum Broken {
    /// The engine's result code.
    Engine(c_int),
    /// What is read could not be written elsewhere.
    File(std::io::Error),
}

/// Reads the file of the connection's database from its beginning to its end, without what is only in the log.
///
/// # Errors
/// Of the engine, and of `each`.
pub(in crate::database) fn read_file(
    handle: &mut LockedSqliteHandle<'_>,
    mut each: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> Result<(), Broken> {
    let db = handle.as_raw_handle().as_ptr();
    let mut file: *mut sys::sqlite3_file = null_mut();
    // SAFETY: the handle is locked, so no other thread uses it; the option writes one pointer to a file that lives as
    // long as the connection (https://www.sqlite.org/c3ref/c_fcntl_begin_atomic_write.html).
    let code = unsafe {
        sys::sqlite3_file_control(
            db,
            c"main".as_ptr(),
            sys::SQLITE_FCNTL_FILE_POINTER,
            (&raw mut file).cast::<c_void>(),
        )
    };
    let file = NonNull::new(file).filter(|_| code == sys::SQLITE_OK).ok_or(Broken::Engine(code))?;
    // SAFETY: the file is open as long as the connection is, and its methods are a constant of the engine's.
    let methods = unsafe { file.as_ref().pMethods.as_ref() }.ok_or(Broken::Engine(sys::SQLITE_IOERR))?;
    let (Some(size_of), Some(read)) = (methods.xFileSize, methods.xRead) else {
        return Err(Broken::Engine(sys::SQLITE_IOERR));
    };
    let mut size = 0;
    // SAFETY: the method belongs to this file, and the out-pointer is valid for writes.
    let code = unsafe { size_of(file.as_ptr(), &raw mut size) };
    if code != sys::SQLITE_OK {
        return Err(Broken::Engine(code));
    }
    let mut buffer = vec![0_u8; CHUNK];
    let mut at = 0;
    while at < size {
        let want = (size - at).min(CHUNK as i64);
        let part = &mut buffer[..usize::try_from(want).unwrap_or(0)];
        // SAFETY: the method belongs to this file, and the buffer has room for as many bytes as are asked for.
        let code = unsafe { read(file.as_ptr(), part.as_mut_ptr().cast(), part.len() as c_int, at) };
        if code != sys::SQLITE_OK {
            return Err(Broken::Engine(code));
        }
        each(part).map_err(Broken::File)?;
        at += want;
    }
    Ok(())
}

/// Puts the database at `from` in place of the connection's, page by page, in one transaction of its own.
///
/// # Errors
/// The engine's result code; then nothing has changed.
pub(in crate::database) fn replace(handle: &mut LockedSqliteHandle<'_>, from: &Path) -> Result<(), Broken> {
    const BAD_PATH: Broken = Broken::Engine(sys::SQLITE_CANTOPEN);
    let from = CString::new(from.as_os_str().as_bytes()).map_err(|_| BAD_PATH)?;
    let db = handle.as_raw_handle().as_ptr();
    let mut source = null_mut();
    // SAFETY: the path ends with a zero byte and the out-pointer is valid for writes.
    let mut code =
        unsafe { sys::sqlite3_open_v2(from.as_ptr(), &raw mut source, sys::SQLITE_OPEN_READONLY, null()) };
    if code == sys::SQLITE_OK {
        // SAFETY: both connections are open, and no other thread uses them: the handle is locked, and the source is
        // ours alone.
        let backup = unsafe { sys::sqlite3_backup_init(db, c"main".as_ptr(), source, c"main".as_ptr()) };
        if backup.is_null() {
            // SAFETY: as above.
            code = unsafe { sys::sqlite3_errcode(db) };
        } else {
            // SAFETY: the backup was made above; a step over all pages commits, and finishing it frees it, once.
            code = unsafe {
                let _ = sys::sqlite3_backup_step(backup, -1);
                sys::sqlite3_backup_finish(backup)
            };
        }
    }
    // SAFETY: opened above, also where opening failed; nothing uses it after this.
    unsafe { sys::sqlite3_close(source) };
    if code == sys::SQLITE_OK { Ok(()) } else { Err(Broken::Engine(code)) }
}

/// Lays the database at `other` beside the connection's, for reading, under the name `beside`. The connection has no
/// role after this.
///
/// # Errors
/// The engine's result code.
pub(in crate::database) fn attach(handle: &mut LockedSqliteHandle<'_>, other: &Path) -> Result<(), Broken> {
    const BAD_PATH: Broken = Broken::Engine(sys::SQLITE_CANTOPEN);
    let path = other.as_os_str().as_bytes();
    let length = c_int::try_from(path.len()).map_err(|_| BAD_PATH)?;
    let db = handle.as_raw_handle();
    let mut statement = null_mut();
    // SAFETY: the handle is locked, so no other thread uses it; the text and the path outlive the statement, which is
    // finalized here; a path of our own making takes the place of the parameter.
    let code = unsafe {
        sys::sqlite3_limit(db.as_ptr(), sys::SQLITE_LIMIT_ATTACHED, 1);
        sys::sqlite3_set_authorizer(db.as_ptr(), None, null_mut());
        let sql = c"ATTACH DATABASE ?1 AS beside";
        let mut code = sys::sqlite3_prepare_v2(db.as_ptr(), sql.as_ptr(), -1, &raw mut statement, null_mut());
        if code == sys::SQLITE_OK {
            code = sys::sqlite3_bind_text(statement, 1, path.as_ptr().cast(), length, None);
        }
        if code == sys::SQLITE_OK {
            code = sys::sqlite3_step(statement);
        }
        sys::sqlite3_finalize(statement);
        sys::sqlite3_limit(db.as_ptr(), sys::SQLITE_LIMIT_ATTACHED, 0);
        code
    };
    authorize(db, Role::Reader, null_mut());
    if code == sys::SQLITE_DONE { Ok(()) } else { Err(Broken::Engine(code)) }
}
