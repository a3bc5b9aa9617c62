//! Archives one after the other in one stream: pieces with their lengths before them; one without bytes ends an archive.

use std::io::{self, Read, Write};

/// The longest piece.
const LONGEST: usize = 256 << 10;

/// Writes one archive.
///
/// # Errors
/// Of `input` and `out`.
pub fn send(input: &mut dyn Read, out: &mut dyn Write) -> io::Result<()> {
    let mut piece = vec![0; LONGEST];
    loop {
        let read = input.read(&mut piece)?;
        out.write_all(&u32::try_from(read).map_err(io::Error::other)?.to_le_bytes())?;
        out.write_all(&piece[..read])?;
        if read == 0 {
            return out.flush();
        }
    }
}

/// Reads what [`send`] has written, archive by archive.
#[derive(Debug)]
pub struct Incoming<R> {
    input: R,
    /// Bytes of the piece that is being read.
    left: usize,
    ended: bool,
}

impl<R: Read> Incoming<R> {
    /// Before the first archive.
    pub fn new(input: R) -> Self {
        Self { input, left: 0, ended: true }
    }

    /// Goes on to the next archive, past what nobody has read of the one before.
    ///
    /// # Errors
    /// Of the stream, and where it ends within an archive.
    pub fn next_archive(&mut self) -> io::Result<()> {
        io::copy(self, &mut io::sink())?;
        self.ended = false;
        Ok(())
    }
}

impl<R: Read> Read for Incoming<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ended || buffer.is_empty() {
            return Ok(0);
        }
        if self.left == 0 {
            let mut length = [0; 4];
            self.input.read_exact(&mut length)?;
            self.left = u32::from_le_bytes(length) as usize;
            if self.left == 0 {
                self.ended = true;
                return Ok(0);
            }
        }
        let most = self.left.min(buffer.len());
        let read = self.input.read(&mut buffer[..most])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_come_apart_again_read_to_their_end_or_not() {
        let mut stream = Vec::new();
        let first = vec![7; 3 * LONGEST + 5];
        for archive in [&first[..], b"", b"third"] {
            send(&mut &*archive, &mut stream).unwrap();
        }
        let mut incoming = Incoming::new(&*stream);
        incoming.next_archive().unwrap();
        let mut some = [0; 9];
        incoming.read_exact(&mut some).unwrap();
        assert_eq!(some, [7; 9]);
        for expected in [&b""[..], b"third"] {
            let mut whole = Vec::new();
            incoming.next_archive().unwrap();
            incoming.read_to_end(&mut whole).unwrap();
            assert_eq!(whole, expected);
        }
        incoming.next_archive().unwrap();
        assert_eq!(incoming.read(&mut some).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let mut cut = Incoming::new(&stream[..LONGEST]);
        cut.next_archive().unwrap();
        assert_eq!(io::copy(&mut cut, &mut io::sink()).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
