//! Files of the VFS: `/files/PATH`, with ranges, and lists of directories.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use httpd::answer::{Answer, HTML, encode, escape, head, media_type};
use httpd::places::Place;
use httpd::range::{Part, part};
use httpd::request::{Method, Request};
use net::{NetworkError, TcpStream};
use proto::fs::{
    Bytes, DirectoryEntry, FileClient, FileKind, FilesClient, FsError, INLINE_BYTES_MAX, OpenFlags,
};
use rt::ipc::CallError;
use rt::{AsHandle, Channel, Deadline, Mapping, startup, time};

use crate::connection::{PIECE_LIMIT, write};

/// Bytes that are read at a time.
const PIECE: usize = 256 * 1024;
/// Bytes that a client has to take within [`PIECE_LIMIT`]: few, since a wire that loses every fifth frame lets few through.
const TAKEN: usize = 16 * 1024;
/// Names of a list.
const NAMES_MAX: usize = 10_000;

/// Answers a request for a file.
pub fn serve(
    stream: &mut TcpStream,
    request: &Request,
    path: &str,
    place: &Place,
) -> Result<(), NetworkError> {
    let answer = match open(request, path) {
        Ok(Opened::File(file, size)) => return send(stream, request, (&file, size), place),
        Ok(Opened::Answer(answer)) => answer,
        Err(answer) => answer,
    };
    let bytes = answer.bytes(request.method, request.persistence);
    write(stream, &bytes, place)
}

enum Opened {
    File(FileClient, u64),
    Answer(Answer),
}

fn failure(error: CallError<FsError>) -> Answer {
    match error {
        CallError::Remote(error) => {
            let status = match error {
                FsError::NotFound | FsError::NotADirectory | FsError::NameTooLong => 404,
                FsError::PermissionDenied => 403,
                FsError::Gone | FsError::NoMemory => 503,
                _ => 500,
            };
            Answer::failure(status, error.text())
        }
        _ => Answer::failure(503, "the file system does not answer"),
    }
}

fn open(request: &Request, path: &str) -> Result<Opened, Answer> {
    if request.method == Method::Post {
        return Err(Answer::status(405));
    }
    let channel = startup::handle::<Channel>("file").and_then(|c| c.duplicate().ok());
    let files = FilesClient::new(channel.ok_or_else(|| Answer::status(403))?);
    let path = if path.is_empty() { "/" } else { path };
    let (info, file) = files
        .open(Bytes::from(path), OpenFlags::READ)
        .map_err(failure)?;
    match info.kind {
        FileKind::File => Ok(Opened::File(file, info.size_bytes)),
        FileKind::Directory => list(path, &file).map(Opened::Answer),
        _ => Err(Answer::failure(403, "not a file")),
    }
}

fn send(
    stream: &mut TcpStream,
    request: &Request,
    (file, size): (&FileClient, u64),
    place: &Place,
) -> Result<(), NetworkError> {
    let ranges = "Accept-Ranges: bytes\r\n";
    let (status, start, length, more) = match part(request.range.as_deref(), size) {
        Part::Whole => (200, 0, size, String::from(ranges)),
        Part::Bytes { start, length } => {
            let last = start + length - 1;
            let more = format!("{ranges}Content-Range: bytes {start}-{last}/{size}\r\n");
            (206, start, length, more)
        }
        Part::Unsatisfiable => (
            416,
            0,
            0,
            format!("{ranges}Content-Range: bytes */{size}\r\n"),
        ),
    };
    let kind = media_type(&request.path);
    let mut bytes = head(status, kind, length, &more, request.persistence).into_bytes();
    let length = match request.method {
        Method::Head => 0,
        _ => length,
    };
    if length > u64::from(INLINE_BYTES_MAX) {
        write(stream, &bytes, place)?;
        return content(stream, file, (start, length), place);
    }
    // What is short travels with the head.
    if length > 0 {
        let refusal = match file.read(start, length as u32) {
            Ok(short) if short.len() as u64 == length => {
                bytes.extend_from_slice(&short);
                None
            }
            Ok(_) => Some(Answer::failure(503, "the file is being changed")),
            Err(error) => Some(failure(error)),
        };
        // Nothing was promised yet.
        if let Some(answer) = refusal {
            bytes = answer.bytes(request.method, request.persistence);
        }
    }
    write(stream, &bytes, place)
}

/// From the file's pages to the connection's pipe by way of one buffer that both sides share.
fn content(
    stream: &mut TcpStream,
    file: &FileClient,
    (start, length): (u64, u64),
    place: &Place,
) -> Result<(), NetworkError> {
    let broken = |_| NetworkError::Gone;
    let piece = usize::try_from(length).unwrap_or(PIECE).min(PIECE);
    let (vmo, memory) = Mapping::create(piece).map_err(broken)?;
    let shared = vmo.duplicate().map_err(broken)?;
    let registered = piece.next_multiple_of(4096) as u64;
    let failed = |_: CallError<FsError>| NetworkError::Gone;
    file.register_buffer(registered, shared).map_err(failed)?;
    let mut done = 0;
    while done < length {
        let wanted = (length - done).min(piece as u64);
        let read = file
            .read_buffer(start + done, wanted, 0u64)
            .map_err(failed)?;
        // A file that ends early breaks the promise that the head made: the connection ends.
        let n = usize::try_from(read.min(wanted)).unwrap_or(0);
        if n == 0 {
            return Err(NetworkError::Gone);
        }
        for at in (0..n).step_by(TAKEN) {
            let len = TAKEN.min(n - at);
            place.waits(time::now_ns());
            stream.write_from(&memory, at, len, Deadline::after(PIECE_LIMIT))?;
            place.works();
        }
        done += n as u64;
    }
    Ok(())
}

fn list(path: &str, directory: &FileClient) -> Result<Answer, Answer> {
    let mut entries: Vec<DirectoryEntry> = Vec::new();
    let mut position = Some(0);
    while let Some(at) = position
        && entries.len() < NAMES_MAX
    {
        let (batch, next) = directory.read_directory(at).map_err(failure)?;
        // One that does not get on must not be asked for ever.
        position = next.filter(|next| *next > at && !batch.is_empty());
        entries.extend(batch);
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let base: String = path
        .split('/')
        .filter(|part| !part.is_empty())
        .map(|part| format!("/{}", encode(part.as_bytes())))
        .collect();
    let title = escape(path);
    let mut page = format!(
        "<!DOCTYPE html><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>{title}</title><style>body{{font:16px system-ui;margin:2em}}</style><h1>{title}</h1><ul>\n"
    );
    if let Some((parent, _)) = base.rsplit_once('/') {
        page.push_str(&format!("<li><a href=\"/files{parent}/\">..</a>\n"));
    }
    for entry in &entries {
        let slash = if entry.kind == FileKind::Directory {
            "/"
        } else {
            ""
        };
        page.push_str(&format!(
            "<li><a href=\"/files{base}/{}{slash}\">{}{slash}</a>\n",
            encode(&entry.name),
            escape(&entry.name.to_text()),
        ));
    }
    page.push_str("</ul>\n");
    Ok(Answer::new(HTML, page))
}
