//! The server's side of iperf3's protocol (as esnet's iperf 3.1 and later speak it): TCP, one test at a time, in either
//! direction.

use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use net::{NetworkError, TcpListener, TcpStream};
use rt::Deadline;
use serde_json::{Value, json};

/// Bytes of the text that ties the connections of a test together.
const COOKIE_BYTES: usize = 37;
/// Longest parameters or results.
const JSON_MAX: u32 = 1 << 20;
/// Most streams of a test.
const STREAMS_MAX: u64 = 128;
/// Time for a step of the protocol.
const STEP_S: u64 = 30;
/// Longest test.
const TEST_MAX_S: u64 = 24 * 3600;

/// States that one side tells the other, a byte each.
mod state {
    pub const TEST_START: u8 = 1;
    pub const TEST_RUNNING: u8 = 2;
    pub const TEST_END: u8 = 4;
    pub const PARAM_EXCHANGE: u8 = 9;
    pub const CREATE_STREAMS: u8 = 10;
    pub const CLIENT_TERMINATE: u8 = 12;
    pub const EXCHANGE_RESULTS: u8 = 13;
    pub const DISPLAY_RESULTS: u8 = 14;
    pub const IPERF_DONE: u8 = 16;
    pub const SERVER_ERROR: u8 = 0xfe;
}

/// How a test went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// Bytes over all streams.
    pub bytes: u64,
    /// How long they flowed.
    pub duration_ns: u64,
    /// Who sent.
    pub direction: Direction,
}

/// Who sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// The client.
    ToServer,
    /// This server.
    FromServer,
}

/// Why a test broke off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Broken {
    /// The network.
    Network(NetworkError),
    /// The client left the protocol, or wants what is not there.
    Protocol(&'static str),
}

impl From<NetworkError> for Broken {
    fn from(error: NetworkError) -> Broken {
        Broken::Network(error)
    }
}

impl core::fmt::Display for Broken {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Broken::Network(error) => error.fmt(f),
            Broken::Protocol(what) => f.write_str(what),
        }
    }
}

fn step() -> Deadline {
    Deadline::after_secs(STEP_S)
}

fn receive_json(control: &mut TcpStream) -> Result<Value, Broken> {
    let mut length = [0; 4];
    if control.read_full(&mut length, step())? < length.len() {
        return Err(Broken::Protocol("the client left"));
    }
    let length = u32::from_be_bytes(length);
    if length > JSON_MAX {
        return Err(Broken::Protocol("the client's parameters are too long"));
    }
    let mut text = alloc::vec![0; length as usize];
    if control.read_full(&mut text, step())? < text.len() {
        return Err(Broken::Protocol("the client left"));
    }
    serde_json::from_slice(&text).map_err(|_| Broken::Protocol("the client's JSON is none"))
}

fn send_json(control: &mut TcpStream, value: &Value) -> Result<(), Broken> {
    let text = value.to_string();
    let length = text.len() as u32;
    control.write_all(&length.to_be_bytes(), step())?;
    Ok(control.write_all(text.as_bytes(), step())?)
}

fn receive_cookie(stream: &mut TcpStream) -> Result<[u8; COOKIE_BYTES], Broken> {
    let mut cookie = [0; COOKIE_BYTES];
    if stream.read_full(&mut cookie, step())? < COOKIE_BYTES {
        return Err(Broken::Protocol("the client left"));
    }
    Ok(cookie)
}

/// What a client wants.
struct Parameters {
    streams: u64,
    direction: Direction,
    block: usize,
}

fn parameters(value: &Value) -> Result<Parameters, Broken> {
    let flag = |name: &str| value[name].as_bool() == Some(true) || value[name].as_u64() == Some(1);
    if flag("udp") {
        return Err(Broken::Protocol("only TCP is served"));
    }
    if flag("bidirectional") {
        return Err(Broken::Protocol("both directions at once are not served"));
    }
    let streams = value["parallel"].as_u64().unwrap_or(1);
    if streams == 0 || streams > STREAMS_MAX {
        return Err(Broken::Protocol("too many streams"));
    }
    let block = value["len"].as_u64().unwrap_or(128 * 1024);
    Ok(Parameters {
        streams,
        direction: if flag("reverse") {
            Direction::FromServer
        } else {
            Direction::ToServer
        },
        block: usize::try_from(block)
            .unwrap_or(usize::MAX)
            .clamp(1, 1 << 20),
    })
}

/// A stream's counter, and whether it is to go on.
struct Flow {
    bytes: AtomicU64,
    stop: AtomicBool,
}

fn pump(mut stream: TcpStream, flow: &Flow, parameters: &Parameters) {
    let mut block = alloc::vec![0; parameters.block];
    while !flow.stop.load(Ordering::Relaxed) {
        let moved = match parameters.direction {
            Direction::ToServer => stream.read(&mut block, step()),
            Direction::FromServer => stream.write_all(&block, step()).map(|()| block.len()),
        };
        match moved {
            Ok(0) => return,
            Ok(n) => {
                flow.bytes.fetch_add(n as u64, Ordering::Relaxed);
            }
            // Nothing came for a while: perhaps it is time to stop.
            Err(NetworkError::TimedOut) => {}
            Err(_) => return,
        }
    }
}

/// Serves one test on a connection that was just accepted.
pub fn serve(listener: &TcpListener, control: &mut TcpStream) -> Result<Outcome, Broken> {
    let cookie = receive_cookie(control)?;
    control.write_all(&[state::PARAM_EXCHANGE], step())?;
    let parameters = match parameters(&receive_json(control)?) {
        Ok(parameters) => Arc::new(parameters),
        Err(error) => {
            // The state, then two error numbers that the client prints.
            control.write_all(&[state::SERVER_ERROR, 0, 0, 0, 0, 0, 0, 0, 0], step())?;
            return Err(error);
        }
    };
    control.write_all(&[state::CREATE_STREAMS], step())?;
    let mut streams = Vec::new();
    while (streams.len() as u64) < parameters.streams {
        let mut stream = listener.accept(STEP_S as u32 * 1000)?;
        // A second client has to wait.
        if receive_cookie(&mut stream)? == cookie {
            streams.push(stream);
        }
    }
    control.write_all(&[state::TEST_START], step())?;
    control.write_all(&[state::TEST_RUNNING], step())?;
    let started = rt::time::now_ns();
    let mut flows = Vec::new();
    for stream in streams {
        let flow = Arc::new(Flow {
            bytes: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        flows.push(flow.clone());
        let parameters = parameters.clone();
        rt::thread::builder("stream")
            .spawn(move || pump(stream, &flow, &parameters))
            .map_err(|_| Broken::Protocol("no thread for a stream"))?;
    }
    let mut word = [0];
    let ended = control.read_full(&mut word, Deadline::after_secs(TEST_MAX_S));
    let duration_ns = rt::time::now_ns() - started;
    for flow in &flows {
        flow.stop.store(true, Ordering::Relaxed);
    }
    match (ended?, word) {
        (1, [state::TEST_END]) => {}
        (1, [state::CLIENT_TERMINATE]) => return Err(Broken::Protocol("the client broke off")),
        _ => return Err(Broken::Protocol("the client left")),
    }
    control.write_all(&[state::EXCHANGE_RESULTS], step())?;
    receive_json(control)?;
    let seconds = duration_ns as f64 / 1e9;
    let results = flows.iter().enumerate().map(|(n, flow)| {
        json!({
            // Numbers as the client gives them: 1, 3, 4, 5 ...
            "id": if n == 0 { 1 } else { n + 2 },
            "bytes": flow.bytes.load(Ordering::Relaxed),
            "retransmits": -1,
            "jitter": 0,
            "errors": 0,
            "packets": 0,
            "start_time": 0,
            "end_time": seconds,
        })
    });
    let results = json!({
        "cpu_util_total": 0,
        "cpu_util_user": 0,
        "cpu_util_system": 0,
        "sender_has_retransmits": 0,
        "streams": Value::Array(results.collect()),
    });
    send_json(control, &results)?;
    control.write_all(&[state::DISPLAY_RESULTS], step())?;
    // The last word; a client that just goes has all that it wanted.
    let _ = control.read_full(&mut word, step());
    let _ = word == [state::IPERF_DONE];
    Ok(Outcome {
        bytes: flows.iter().map(|f| f.bytes.load(Ordering::Relaxed)).sum(),
        duration_ns,
        direction: parameters.direction,
    })
}
