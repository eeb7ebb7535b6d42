//! One connection: requests one after the other, each within its time.

use alloc::vec::Vec;
use core::time::Duration;

use httpd::answer::{Answer, HTML, METRICS};
use httpd::places::Place;
use httpd::request::{HEAD_MAX, Method, Parsed, Persistence, Request, parse};
use net::{NetworkError, TcpStream};
use rt::{Deadline, time};

use crate::{api, files};

/// Time for all of a request's head to come.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// Time between requests.
const IDLE_LIMIT: Duration = Duration::from_secs(30);
/// Time for a piece of an answer to be taken.
pub const PIECE_LIMIT: Duration = Duration::from_secs(60);
/// Requests of a connection: nobody keeps a place for ever.
const REQUESTS_MAX: u32 = 100_000;

/// Serves a connection to its end.
pub fn serve(mut stream: TcpStream, place: &Place) {
    let mut buffer = Vec::new();
    for _ in 0..REQUESTS_MAX {
        place.waits(time::now_ns());
        let received = receive(&mut stream, &mut buffer);
        place.works();
        let request = match received {
            Ok(Some(request)) => request,
            Ok(None) => break,
            Err(status) => {
                let answer = Answer::status(status).bytes(Method::Get, Persistence::Close);
                // Whoever sends garbage may not listen.
                place.waits(time::now_ns());
                let _ = stream.write_all(&answer, Deadline::after(PIECE_LIMIT));
                break;
            }
        };
        let go_on = request.persistence == Persistence::KeepAlive;
        if answer(&mut stream, &request, place).is_err() || !go_on {
            break;
        }
    }
    place.waits(time::now_ns());
    let _ = stream.finish(Deadline::after(PIECE_LIMIT));
}

/// The next request; `None` at the end, else the status to answer with. What comes behind it stays in the buffer.
fn receive(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<Option<Request>, u16> {
    let mut deadline = Deadline::after(if buffer.is_empty() {
        IDLE_LIMIT
    } else {
        HEAD_LIMIT
    });
    let mut has_news = true;
    let (request, length) = loop {
        if has_news {
            match parse(buffer) {
                Parsed::Complete(request, length) => break (request, length),
                Parsed::Bad(status) => return Err(status),
                Parsed::Partial => {}
            }
        }
        let mut piece = [0; 4096];
        match stream.read(&mut piece, deadline) {
            Ok(0) => return Ok(None),
            Ok(n) => {
                let piece = piece.get(..n).unwrap_or_default();
                // A head that comes byte by byte is looked at line by line: each look is at all of it.
                has_news =
                    buffer.is_empty() || piece.contains(&b'\n') || buffer.len() + n >= HEAD_MAX;
                if buffer.is_empty() {
                    deadline = Deadline::after(HEAD_LIMIT);
                }
                buffer.extend_from_slice(piece);
            }
            Err(NetworkError::TimedOut) if !buffer.is_empty() => return Err(408),
            Err(_) => return Ok(None),
        }
    };
    buffer.drain(..length);
    let mut content = usize::try_from(request.content_length).unwrap_or(usize::MAX);
    while content > 0 {
        if buffer.is_empty() {
            let mut piece = [0; 4096];
            let n = stream.read(&mut piece, deadline).map_err(|_| 408u16)?;
            if n == 0 {
                return Ok(None);
            }
            buffer.extend_from_slice(piece.get(..n).unwrap_or_default());
        }
        let n = content.min(buffer.len());
        buffer.drain(..n);
        content -= n;
    }
    Ok(Some(request))
}

fn answer(stream: &mut TcpStream, request: &Request, place: &Place) -> Result<(), NetworkError> {
    let path = request.path.as_str();
    if let Some(rest) = path.strip_prefix("/files")
        && (rest.is_empty() || rest.starts_with('/'))
    {
        return files::serve(stream, request, rest, place);
    }
    let reading = request.method != Method::Post;
    let answer = match path {
        "/" | "/index.html" if reading => Answer::new(HTML, httpd::DASHBOARD),
        "/metrics" if reading => {
            let state = api::state(api::Wanted::All);
            Answer::new(METRICS, httpd::metrics::text(&state))
        }
        "/api/driver" if !reading => api::driver(request),
        _ if reading => api::read(request).unwrap_or_else(|| Answer::status(404)),
        _ => Answer::status(405),
    };
    let bytes = answer.bytes(request.method, request.persistence);
    write(stream, &bytes, place)
}

/// Sends bytes, which the client has to take.
pub fn write(stream: &mut TcpStream, bytes: &[u8], place: &Place) -> Result<(), NetworkError> {
    place.waits(time::now_ns());
    let written = stream.write_all(bytes, Deadline::after(PIECE_LIMIT));
    place.works();
    written
}
