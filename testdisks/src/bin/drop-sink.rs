//! `drop-sink`: speaks enough of the blob service's protocol for uploads to be measured, and drops every body.
//!
//! Listens on 127.0.0.1, prints `PORT n`, and ends when stdin does, with `BYTES n REQUESTS n` on stdout.
//!
//! `drop-sink fill PORT CONNECTIONS COUNT LENGTH [COUNT LENGTH]…` is the other side: it puts so many bodies of zeros as
//! fast as sockets take them, without looking at a byte. No client is faster, so this is the sink's own speed.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

static BYTES: AtomicU64 = AtomicU64::new(0);
static REQUESTS: AtomicU64 = AtomicU64::new(0);

/// Answers the requests of one connection until it ends.
fn serve(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut out = stream.try_clone()?;
    let mut reader = BufReader::with_capacity(1 << 16, stream);
    let mut drop_into = vec![0; 1 << 18];
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let method = line.split(' ').next().unwrap_or_default().to_owned();
        let is_list = line.contains("comp=blocklist") || line.contains("comp=list");
        let (mut len, mut waits) = (0u64, false);
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                len = value.trim().parse().unwrap_or(0);
            }
            waits |= name.eq_ignore_ascii_case("expect");
        }
        if waits {
            out.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let mut left = len;
        while left > 0 {
            let most = left.min(drop_into.len() as u64) as usize;
            let got = reader.read(&mut drop_into[..most])?;
            if got == 0 {
                return Ok(());
            }
            left -= got as u64;
        }
        BYTES.fetch_add(len, Ordering::Relaxed);
        REQUESTS.fetch_add(1, Ordering::Relaxed);
        let head = "Date: Sun, 29 Nov 2026 12:00:00 GMT\r\nx-ms-version: 2021-12-02\r\nx-ms-request-id: 1\r\n";
        // Nothing is ever there.
        let answer = match &*method {
            "PUT" => format!(
                "HTTP/1.1 201 Created\r\n{head}ETag: \"0x1\"\r\nLast-Modified: Sun, 29 Nov 2026 12:00:00 GMT\r\n\
                 x-ms-lease-id: 00000000-0000-0000-0000-000000000000\r\nContent-Length: 0\r\n\r\n"
            ),
            "HEAD" => {
                format!("HTTP/1.1 404 Not Found\r\n{head}x-ms-error-code: BlobNotFound\r\nContent-Length: 0\r\n\r\n")
            }
            _ => {
                let body = if is_list {
                    "<?xml version=\"1.0\"?><Error><Code>BlobNotFound</Code><Message>none</Message></Error>"
                } else {
                    ""
                };
                let (len, code) = (body.len(), "x-ms-error-code: BlobNotFound");
                format!("HTTP/1.1 404 Not Found\r\n{head}{code}\r\nContent-Length: {len}\r\n\r\n{body}")
            }
        };
        out.write_all(answer.as_bytes())?;
    }
}

/// Puts every body whose turn it is, over one connection.
fn put(port: u16, turns: &AtomicUsize, lengths: &[usize]) -> io::Result<()> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_nodelay(true)?;
    let mut out = stream.try_clone()?;
    let mut answers = BufReader::new(stream);
    let body = vec![0; lengths.iter().copied().max().unwrap_or(0)];
    let mut line = String::new();
    while let Some(len) = lengths.get(turns.fetch_add(1, Ordering::Relaxed)) {
        let head = format!("PUT /devstoreaccount1/box/blob HTTP/1.1\r\nHost: sink\r\nContent-Length: {len}\r\n\r\n");
        out.write_all(head.as_bytes())?;
        out.write_all(&body[..*len])?;
        line.clear();
        while line != "\r\n" {
            line.clear();
            if answers.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
    Ok(())
}

fn fill(numbers: &[usize]) -> io::Result<()> {
    let [port, connections, bodies @ ..] = numbers else { return Err(io::ErrorKind::InvalidInput.into()) };
    let port = u16::try_from(*port).map_err(io::Error::other)?;
    let lengths: Vec<usize> =
        bodies.as_chunks::<2>().0.iter().flat_map(|[count, len]| std::iter::repeat_n(*len, *count)).collect();
    let turns = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..*connections).map(|_| scope.spawn(|| put(port, &turns, &lengths))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
    })
}

fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let ["fill", numbers @ ..] = &*words.iter().map(String::as_str).collect::<Vec<_>>() {
        let numbers: Result<Vec<usize>, _> = numbers.iter().map(|number| number.parse()).collect();
        return fill(&numbers.map_err(io::Error::other)?);
    }
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("PORT {}", listener.local_addr()?.port());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let _ = serve(stream);
            });
        }
    });
    io::stdin().read_to_end(&mut Vec::new())?;
    println!("BYTES {} REQUESTS {}", BYTES.load(Ordering::Relaxed), REQUESTS.load(Ordering::Relaxed));
    Ok(())
}
