//! A mail server: it greets, keeps what it is sent, and nothing of it is left.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use testkit::{Mailbox, require};

#[test]
fn a_mailbox_keeps_what_it_is_sent_until_it_is_taken() {
    let mailbox = require(Mailbox::start());
    let address = mailbox.url().strip_prefix("smtp://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let mut answers = BufReader::new(stream.try_clone().unwrap()).lines();
    assert!(answers.next().unwrap().unwrap().starts_with("220 "));
    let text = "Subject: one\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nHello =C3=B6=\r\n!\r\n\r\n    123456\r\n";
    let lines = ["HELO here", "MAIL FROM:<a@example.org>", "RCPT TO:<b@example.org>", "DATA"];
    for line in lines.into_iter().chain([&*format!("{text}.")]) {
        write!(stream, "{line}\r\n").unwrap();
        let answer = answers.next().unwrap().unwrap();
        assert!(answer.starts_with(['2', '3']), "{line}: {answer}");
    }
    let mail = mailbox.take(|mail| mail.to == "b@example.org").unwrap();
    assert_eq!((mail.subject().as_str(), mail.code(), mail.link()), ("one", Some("123456"), None));
    assert!(mail.text.starts_with("Hello ö!\n"), "{mail:?}");
    assert_eq!(mailbox.mails().unwrap(), []);
}
