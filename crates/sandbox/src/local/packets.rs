//! Messages with open files between the gateway and the process that makes sandboxes, one packet each.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::MemfdFlags;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

/// What fits into a packet; longer messages go along as a file in memory.
const IN_PACKET: usize = 32 << 10;

/// Longest message.
const MAX: u64 = 16 << 20;

/// Most open files of a message.
pub const FILES: usize = 16;

/// The first byte of a packet: its words follow, or are in its first file.
const HERE: u8 = 0;
const IN_FILE: u8 = 1;

/// A message that has come.
#[derive(Debug)]
pub struct Packet {
    /// Its words.
    pub text: Vec<u8>,
    /// Its open files.
    pub files: Vec<OwnedFd>,
}

/// Two ends of a connection.
///
/// # Errors
/// Of the kernel.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends one message. `WouldBlock` where the socket does not block and has no room.
///
/// # Errors
/// Of the socket.
pub fn send(socket: BorrowedFd<'_>, text: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<()> {
    if text.len() <= IN_PACKET {
        return send_packet(socket, &[&[HERE], text], files);
    }
    let mut memory = File::from(rustix::fs::memfd_create("message", MemfdFlags::CLOEXEC)?);
    memory.write_all(text)?;
    memory.rewind()?;
    let files: Vec<_> = std::iter::once(memory.as_fd()).chain(files.iter().copied()).collect();
    send_packet(socket, &[&[IN_FILE]], &files)
}

fn send_packet(socket: BorrowedFd<'_>, parts: &[&[u8]], files: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES + 1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(io::Error::other("too many files in a message"));
    }
    let parts: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
    loop {
        match sendmsg(socket, &parts, &mut ancillary, SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Receives one message; none where the other end is closed.
///
/// # Errors
/// `WouldBlock`; `InvalidData` for a packet that is cut off or too long; of the socket.
pub fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<Packet>> {
    let mut text = vec![0; IN_PACKET + 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES + 1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match recvmsg(socket, &mut [IoSliceMut::new(&mut text)], &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut files = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            files.extend(fds);
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    text.truncate(received.bytes);
    match text.first() {
        Some(&HERE) => Ok(Some(Packet { text: text.split_off(1), files })),
        Some(&IN_FILE) if !files.is_empty() => {
            let mut whole = Vec::new();
            File::from(files.remove(0)).take(MAX + 1).read_to_end(&mut whole)?;
            if whole.len() as u64 > MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            Ok(Some(Packet { text: whole, files }))
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_messages_come_whole_with_their_files() {
        let (one, other) = pair().unwrap();
        for length in [0, 1, IN_PACKET, IN_PACKET + 1, 3 << 20] {
            let text = vec![b'x'; length];
            let (read, write) = rustix::pipe::pipe().unwrap();
            send(one.as_fd(), &text, &[write.as_fd()]).unwrap();
            drop(write);
            let packet = receive(other.as_fd()).unwrap().unwrap();
            assert_eq!((packet.text.len(), packet.files.len()), (length, 1));
            rustix::io::write(&packet.files[0], b"through").unwrap();
            let mut buffer = [0; 16];
            assert_eq!(rustix::io::read(&read, &mut buffer).unwrap(), 7);
        }
        drop(one);
        assert!(receive(other.as_fd()).unwrap().is_none());
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let (one, other) = pair().unwrap();
        for packet in [vec![7, 1, 2], vec![IN_FILE], vec![HERE; IN_PACKET + 2]] {
            sendmsg(&one, &[IoSlice::new(&packet)], &mut SendAncillaryBuffer::default(), SendFlags::empty())
                .unwrap();
            assert_eq!(receive(other.as_fd()).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }
}
