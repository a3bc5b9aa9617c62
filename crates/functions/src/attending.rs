//! What is done with a process while it lives: its log is read, and its end is waited for.

use sandbox::session::{Outcome, Process, Reader, Session};
use tokio::sync::{mpsc, watch};

use crate::instance::Sink;
use crate::output::{Piece, Pieces, Said};
use crate::pace::Pace;

/// Lines and bytes a second that are read of one channel of a process, and how many more for a moment.
const LINES: (f64, f64) = (1_000.0, 5_000.0);
const BYTES: (f64, f64) = (1_048_576.0, 4_194_304.0);

/// Looks after a process until it ends, and its session, with which it does.
pub(crate) async fn attend(
    session: Session,
    mut process: Process,
    mut asked: mpsc::Receiver<i32>,
    end: watch::Sender<Option<Outcome>>,
) {
    let outcome = loop {
        tokio::select! {
            exit = process.wait() => break exit.map_or(Outcome::TimedOut, |exit| exit.outcome),
            Some(signal) = asked.recv() => {
                // It may just have ended.
                let _ = process.signal(signal);
            }
        }
    };
    end.send_replace(Some(outcome));
    drop(session);
}

/// Reads one channel of a process to its end.
pub(crate) async fn read(
    mut from: Reader,
    mut pieces: Pieces,
    sink: Sink,
    mut said: Option<mpsc::Sender<Said>>,
) {
    let mut give = |piece| match piece {
        Piece::Line(line) => sink(line),
        // It is said once; what is said again is nobody's business.
        Piece::Said(it) => {
            if let Some(said) = said.take() {
                let _ = said.try_send(it);
            }
        }
    };
    let (mut lines, mut bytes) = (Pace::new(LINES.0, LINES.1), Pace::new(BYTES.0, BYTES.1));
    while let Some(chunk) = from.chunk().await {
        let ends = chunk.iter().filter(|byte| **byte == b'\n').count();
        pieces.take(&chunk, &mut give);
        // Who writes faster than that waits until it is read.
        let wait = lines.take(ends as f64).max(bytes.take(chunk.len() as f64));
        tokio::time::sleep(wait).await;
    }
    pieces.end(&mut give);
}
