//! Server-sent events (HTML, §9.2.6), as far as MCP uses them: the data of each event.

/// Cuts a stream of bytes into events.
#[derive(Default)]
pub(super) struct Events {
    line: Vec<u8>,
    data: Vec<u8>,
}

impl Events {
    /// Takes in what arrived; gives the data of the events that it completes. Events without data are left out.
    pub(super) fn push(&mut self, chunk: &[u8]) -> Vec<Vec<u8>> {
        let mut done = Vec::new();
        for &byte in chunk {
            if byte != b'\n' {
                self.line.push(byte);
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = line.strip_suffix(b"\r").unwrap_or(&line);
            if line.is_empty() {
                let data = std::mem::take(&mut self.data);
                if !data.is_empty() {
                    done.push(data);
                }
            } else if let Some(data) = line.strip_prefix(b"data:") {
                if !self.data.is_empty() {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(data.strip_prefix(b" ").unwrap_or(data));
            }
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_out_whole_however_the_bytes_arrive() {
        let stream = b": hello\r\nid: 0\ndata:\nretry: 3000\n\nevent: message\ndata: {\"a\":\ndata: 1}\n\ndata:x\r\n\r\ndata: cut";
        let expected = vec![b"{\"a\":\n1}".to_vec(), b"x".to_vec()];
        for size in 1..stream.len() {
            let mut events = Events::default();
            let got: Vec<_> = stream.chunks(size).flat_map(|chunk| events.push(chunk)).collect();
            assert_eq!(got, expected, "in chunks of {size}");
        }
    }
}
