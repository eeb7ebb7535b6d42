//! Between the one line to a guest and its many clients.
//!
//! It gives each request a number of its own, passes messages on as they are, and ends what cannot be
//! answered any more. It holds no more than what credit allows a request to have under way.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use control_link::{Decoder, Ending, FromSystem, ToSystem, VERSION, encode};

/// How often a guest that has not answered is called.
const CALL_INTERVAL: Duration = Duration::from_millis(500);

/// A request that is under way.
#[derive(Clone, Copy, Debug)]
struct Route {
    client: u64,
    /// Its number at the client.
    id: u32,
}

#[derive(Debug, Default)]
struct State {
    next_id: u32,
    next_client: u64,
    /// By their number at the system.
    routes: HashMap<u32, Route>,
    clients: HashMap<u64, Sender<Vec<u8>>>,
    /// What the system said of itself.
    hello: Option<(u16, u64)>,
    /// What every request is answered since the system ended.
    over: Option<Ending>,
}

/// The switch of one system.
#[derive(Clone, Debug)]
pub struct Switch {
    line: Arc<Mutex<UnixStream>>,
    state: Arc<(Mutex<State>, Condvar)>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A thread that panicked has left nothing half done that matters more than going on.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Switch {
    /// Listens at `address` for clients of the system at the other end of `line`.
    ///
    /// # Errors
    /// When nobody can listen there.
    pub fn start(line: UnixStream, address: &Path) -> anyhow::Result<Switch> {
        let listener = UnixListener::bind(address)
            .with_context(|| format!("cannot listen at {}", address.display()))?;
        let incoming = line.try_clone().context("the control port's socket")?;
        let switch = Switch {
            line: Arc::new(Mutex::new(line)),
            state: Arc::default(),
        };
        let own = switch.clone();
        thread::spawn(move || own.listen_to_system(incoming));
        let own = switch.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                own.accept(client);
            }
        });
        Ok(switch)
    }

    /// Waits until the system's control service answers.
    ///
    /// # Errors
    /// When it does not within the limit, or speaks another version.
    pub fn wait_for_system(&self, limit: Duration) -> anyhow::Result<()> {
        let started = Instant::now();
        let (state, changed) = &*self.state;
        loop {
            self.send(&ToSystem::Hello);
            let guard = locked(state);
            let waited = changed.wait_timeout_while(guard, CALL_INTERVAL, |state| {
                state.hello.is_none() && state.over.is_none()
            });
            let (guard, _) = waited.unwrap_or_else(PoisonError::into_inner);
            match (guard.hello, &guard.over) {
                (_, Some(_)) => bail!("the system ended before it was ready"),
                (Some((VERSION, _)), None) => return Ok(()),
                (Some((version, _)), None) => bail!(
                    "the system speaks version {version} of the control protocol, and this is version {VERSION}"
                ),
                (None, None) if started.elapsed() >= limit => {
                    bail!("the control port is silent after {} s", limit.as_secs())
                }
                (None, None) => {}
            }
        }
    }

    /// The system has ended: so has every request.
    pub fn end(&self, ending: Ending) {
        let (state, changed) = &*self.state;
        let mut state = locked(state);
        self.end_all(&mut state, &ending);
        state.over = Some(ending);
        changed.notify_all();
    }

    /// Answers every request that is under way.
    fn end_all(&self, state: &mut State, ending: &Ending) {
        for (_, route) in std::mem::take(&mut state.routes) {
            answer(state, route, ending.clone());
        }
    }

    fn send(&self, message: &ToSystem) {
        let Ok(frame) = encode(message) else {
            return;
        };
        // A system that is gone is noticed where its answers are read.
        let _ = locked(&self.line).write_all(&frame);
    }

    fn listen_to_system(&self, mut line: UnixStream) {
        let mut decoder = Decoder::new();
        let mut buffer = vec![0; 64 * 1024];
        while let Some(bytes) = read_some(&mut line, &mut buffer) {
            let mut frames = 0;
            decoder.push(bytes, |message| {
                frames += 1;
                match message {
                    Ok(message) => self.answered(message),
                    // Before the first greeting the line may carry anything.
                    Err(error) if self.is_up() => {
                        self.lost(&format!("the control port brought {error}"));
                    }
                    Err(_) => {}
                }
            });
            if frames > 0 {
                self.send(&ToSystem::Received { frames });
            }
        }
    }

    fn is_up(&self) -> bool {
        locked(&self.state.0).hello.is_some()
    }

    fn answered(&self, mut message: FromSystem) {
        let (state, changed) = &*self.state;
        match message {
            FromSystem::Hello {
                version,
                incarnation,
            } => {
                let mut state = locked(state);
                let before = state.hello.replace((version, incarnation));
                if before.is_some_and(|(_, before)| before != incarnation) {
                    let reason = "the control service was started again".to_owned();
                    self.end_all(&mut state, &Ending::Failed { reason });
                }
                changed.notify_all();
            }
            FromSystem::Damaged { frames } => {
                if self.is_up() {
                    self.lost(&format!("{frames} frames came damaged to the system"));
                }
            }
            ref mut other => {
                let ended = matches!(other, FromSystem::Ended { .. });
                let Some(id) = other.id_mut() else {
                    return;
                };
                let mut state = locked(state);
                let route = if ended {
                    state.routes.remove(id)
                } else {
                    state.routes.get(id).copied()
                };
                if let Some(route) = route {
                    *id = route.id;
                    deliver(&state, route.client, other);
                }
            }
        }
    }

    /// Something was lost on the line, and nobody knows what: nothing under way can be trusted to end.
    fn lost(&self, what: &str) {
        let mut state = locked(&self.state.0);
        if state.routes.is_empty() {
            return;
        }
        let ids: Vec<u32> = state.routes.keys().copied().collect();
        let reason = format!("{what}; the request was cancelled");
        self.end_all(&mut state, &Ending::Failed { reason });
        drop(state);
        for id in ids {
            self.send(&ToSystem::Cancel { id });
        }
    }

    fn accept(&self, client: UnixStream) {
        let Ok(mut output) = client.try_clone() else {
            return;
        };
        // Credit bounds what waits here.
        let (sender, frames) = mpsc::channel::<Vec<u8>>();
        thread::spawn(move || {
            for frame in frames {
                if output.write_all(&frame).is_err() {
                    return;
                }
            }
        });
        let number = {
            let mut state = locked(&self.state.0);
            state.next_client += 1;
            let number = state.next_client;
            state.clients.insert(number, sender);
            number
        };
        let switch = self.clone();
        thread::spawn(move || {
            switch.listen_to_client(number, client);
            switch.forget(number);
        });
    }

    fn listen_to_client(&self, client: u64, mut input: UnixStream) {
        let mut decoder = Decoder::new();
        let mut buffer = vec![0; 64 * 1024];
        let mut ids = HashMap::new();
        let mut sound = true;
        while let Some(bytes) = read_some(&mut input, &mut buffer).filter(|_| sound) {
            decoder.push(bytes, |message| match message {
                Ok(message) if sound => self.asked(client, &mut ids, message),
                Ok(_) => {}
                // A socket damages nothing: this is no client of ours.
                Err(_) => sound = false,
            });
        }
    }

    fn asked(&self, client: u64, ids: &mut HashMap<u32, u32>, mut message: ToSystem) {
        let mut state = locked(&self.state.0);
        let Some(id) = message.id_mut() else {
            if let Some((version, incarnation)) = state.hello {
                let hello = FromSystem::Hello {
                    version,
                    incarnation,
                };
                deliver(&state, client, &hello);
            }
            return;
        };
        let own = *id;
        // Numbers of requests that are over.
        ids.retain(|_, number| state.routes.contains_key(number));
        let known = ids.get(&own).copied();
        if !message.begins() {
            let (Some(number), Some(id)) = (known, message.id_mut()) else {
                return;
            };
            *id = number;
            drop(state);
            return self.send(&message);
        }
        let route = Route { client, id: own };
        let failed = |reason: &str| {
            let reason = reason.to_owned();
            Some(Ending::Failed { reason })
        };
        let refusal = match (&state.over, state.hello, known) {
            (Some(ending), _, _) => Some(ending.clone()),
            (None, None, _) => failed("the system is not up yet"),
            (None, Some(_), Some(_)) => failed("the request's number is in use"),
            (None, Some(_), None) => None,
        };
        if let Some(ending) = refusal {
            return answer(&state, route, ending);
        }
        loop {
            state.next_id = state.next_id.wrapping_add(1).max(1);
            if !state.routes.contains_key(&state.next_id) {
                break;
            }
        }
        let number = state.next_id;
        state.routes.insert(number, route);
        ids.insert(own, number);
        if let Some(id) = message.id_mut() {
            *id = number;
        }
        drop(state);
        self.send(&message);
    }

    /// The client is gone: nobody waits for its requests.
    fn forget(&self, client: u64) {
        let mut state = locked(&self.state.0);
        state.clients.remove(&client);
        let routes = state.routes.iter();
        let ids: Vec<u32> = routes
            .filter(|(_, route)| route.client == client)
            .map(|(id, _)| *id)
            .collect();
        drop(state);
        // The routes stay until the system says that they are over, so that their numbers stay in use.
        for id in ids {
            self.send(&ToSystem::Cancel { id });
        }
    }
}

fn answer(state: &State, route: Route, ending: Ending) {
    let ended = FromSystem::Ended {
        id: route.id,
        ending,
    };
    deliver(state, route.client, &ended);
}

fn deliver(state: &State, client: u64, message: &FromSystem) {
    if let (Some(sender), Ok(frame)) = (state.clients.get(&client), encode(message)) {
        // A client that is gone is forgotten where its requests are read.
        let _ = sender.send(frame);
    }
}

fn read_some<'a>(stream: &mut impl Read, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    loop {
        match stream.read(buffer) {
            Ok(0) => return None,
            Ok(len) => return buffer.get(..len),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}
