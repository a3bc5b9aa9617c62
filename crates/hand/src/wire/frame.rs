//! Frames: `{len u32, stream u32, kind u8}`, little endian, and `len` bytes.

/// Bytes before each payload.
pub const HEADER: usize = 9;

/// The most bytes of one payload.
pub const MAX_PAYLOAD: usize = 64 << 10;

/// How many bytes may be sent on a channel of a new stream before credit comes.
pub const WINDOW: u32 = 256 << 10;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// JSON, the hand's first frame, on stream 0.
    Hello,
    /// JSON, a request that begins a stream.
    Open,
    /// Bytes: towards the hand standard input, from it standard output.
    Data,
    /// Bytes from the hand: standard error.
    ErrData,
    /// A `u32`: that many more bytes of [`Kind::Data`] may come.
    Credit,
    /// A `u32`: that many more bytes of [`Kind::ErrData`] may come.
    ErrCredit,
    /// Nothing: no more [`Kind::Data`] comes on this stream from who says so.
    End,
    /// JSON to the hand: something about a stream that is open.
    Tell,
    /// JSON from the hand: something has happened.
    Event,
    /// JSON from the hand: the stream's good end.
    Reply,
    /// JSON from the hand: the stream's bad end.
    Fail,
    /// Nothing, to the hand: the stream is of no more interest, end it and what it began.
    Reset,
}

impl Kind {
    const ALL: [Kind; 12] = [
        Kind::Hello,
        Kind::Open,
        Kind::Data,
        Kind::ErrData,
        Kind::Credit,
        Kind::ErrCredit,
        Kind::End,
        Kind::Tell,
        Kind::Event,
        Kind::Reply,
        Kind::Fail,
        Kind::Reset,
    ];

    fn from_byte(byte: u8) -> Option<Kind> {
        Self::ALL.get(usize::from(byte)).copied()
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The stream it belongs to; 0 is the connection itself.
    pub stream: u32,
    /// What it is.
    pub kind: Kind,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// A frame that is none. The decoder has passed over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Bad {
    /// It says that it is longer than a frame may be.
    #[error("a frame of {len} bytes is longer than {MAX_PAYLOAD}")]
    TooLong {
        /// The stream it names.
        stream: u32,
        /// The bytes it names.
        len: u32,
    },
    /// There is no such kind.
    #[error("there is no frame of kind {kind}")]
    UnknownKind {
        /// The stream it names.
        stream: u32,
        /// The kind it names.
        kind: u8,
    },
}

/// Adds a frame to `out`; payloads over [`MAX_PAYLOAD`] become several frames, which only kinds that carry bytes allow.
pub fn encode(out: &mut Vec<u8>, stream: u32, kind: Kind, payload: &[u8]) {
    let mut rest = payload;
    loop {
        let (now, later) = rest.split_at(rest.len().min(MAX_PAYLOAD));
        out.reserve(HEADER + now.len());
        out.extend_from_slice(&(now.len() as u32).to_le_bytes());
        out.extend_from_slice(&stream.to_le_bytes());
        out.push(kind as u8);
        out.extend_from_slice(now);
        if later.is_empty() {
            return;
        }
        rest = later;
    }
}

/// Makes frames of bytes as they come. Holds one frame at most beyond what was fed.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    /// Where in `bytes` the next frame begins.
    at: usize,
    /// Bytes of a bad frame that are still to be passed over.
    skip: usize,
}

impl Decoder {
    /// Takes bytes that have come.
    pub fn feed(&mut self, bytes: &[u8]) {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        if self.at > 0 {
            self.bytes.drain(..self.at);
            self.at = 0;
        }
        self.bytes.extend_from_slice(&bytes[skipped..]);
    }

    /// The next frame, where all of it is here.
    ///
    /// # Errors
    /// A frame that is none; the one after it comes with the next call.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, Bad> {
        let rest = &self.bytes[self.at..];
        let Some((head, rest)) = rest.split_first_chunk::<HEADER>() else { return Ok(None) };
        let [l0, l1, l2, l3, s0, s1, s2, s3, kind] = *head;
        let (len, stream) = (u32::from_le_bytes([l0, l1, l2, l3]), u32::from_le_bytes([s0, s1, s2, s3]));
        let size = len as usize;
        if size > MAX_PAYLOAD {
            let here = size.min(rest.len());
            self.skip = size - here;
            self.at += HEADER + here;
            return Err(Bad::TooLong { stream, len });
        }
        if rest.len() < size {
            return Ok(None);
        }
        let payload = rest[..size].to_vec();
        self.at += HEADER + size;
        let kind = Kind::from_byte(kind).ok_or(Bad::UnknownKind { stream, kind })?;
        Ok(Some(Frame { stream, kind, payload }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(decoder: &mut Decoder) -> Vec<Result<Frame, Bad>> {
        std::iter::from_fn(|| decoder.next_frame().transpose()).collect()
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_the_bytes_are_cut() {
        let mut bytes = Vec::new();
        let frames: Vec<Frame> = Kind::ALL
            .into_iter()
            .enumerate()
            .map(|(i, kind)| Frame {
                stream: i as u32 * 1_000_003,
                kind,
                payload: vec![i as u8; i * 7_001 % MAX_PAYLOAD],
            })
            .collect();
        for frame in &frames {
            encode(&mut bytes, frame.stream, frame.kind, &frame.payload);
        }
        for step in [1, 2, 8, 9, 10, 1_000, bytes.len()] {
            let mut decoder = Decoder::default();
            let mut seen = Vec::new();
            for chunk in bytes.chunks(step) {
                decoder.feed(chunk);
                seen.extend(all(&mut decoder).into_iter().map(|frame| frame.expect("a good frame")));
            }
            assert_eq!(seen, frames, "in steps of {step}");
        }
    }

    #[test]
    fn a_payload_over_the_limit_becomes_several_frames() {
        let mut bytes = Vec::new();
        encode(&mut bytes, 7, Kind::Data, &vec![1; MAX_PAYLOAD + 1]);
        let mut decoder = Decoder::default();
        decoder.feed(&bytes);
        let sizes: Vec<usize> =
            all(&mut decoder).into_iter().map(|f| f.expect("good").payload.len()).collect();
        assert_eq!(sizes, [MAX_PAYLOAD, 1]);
    }

    #[test]
    fn bad_frames_are_passed_over_without_room_for_them_and_the_next_is_read() {
        let mut bytes = Vec::new();
        let long = MAX_PAYLOAD as u32 + 500;
        bytes.extend_from_slice(&long.to_le_bytes());
        bytes.extend_from_slice(&5u32.to_le_bytes());
        bytes.push(Kind::Data as u8);
        bytes.extend(std::iter::repeat_n(0xAA, long as usize));
        encode(&mut bytes, 6, Kind::End, b"");
        let unknown = bytes.len() - 1;
        bytes[unknown] = 200;
        encode(&mut bytes, 8, Kind::End, b"");
        let expected = [
            Err(Bad::TooLong { stream: 5, len: long }),
            Err(Bad::UnknownKind { stream: 6, kind: 200 }),
            Ok(Frame { stream: 8, kind: Kind::End, payload: Vec::new() }),
        ];
        for step in [1, 4_096, bytes.len()] {
            let mut decoder = Decoder::default();
            let mut seen = Vec::new();
            for chunk in bytes.chunks(step) {
                decoder.feed(chunk);
                seen.extend(all(&mut decoder));
                assert!(decoder.bytes.len() <= HEADER + MAX_PAYLOAD + step, "held {}", decoder.bytes.len());
            }
            assert_eq!(seen, expected, "in steps of {step}");
        }
    }
}
