//! The expressions of `find`: parsing and evaluating.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use shell::pattern::Pattern;
use unix::fs::{Kind, Metadata};
use unix::{Stop, Tool};

use crate::command::Naming;
use crate::listing::{self, LongOptions};

/// A number with `+` (more than), `-` (less than) or neither.
#[derive(Clone, Copy, Debug)]
enum Compare {
    More(u64),
    Less(u64),
    Same(u64),
}

impl Compare {
    fn parse(text: &str) -> Option<Compare> {
        Some(match text.strip_prefix('+') {
            Some(n) => Compare::More(n.parse().ok()?),
            None => match text.strip_prefix('-') {
                Some(n) => Compare::Less(n.parse().ok()?),
                None => Compare::Same(text.parse().ok()?),
            },
        })
    }

    fn holds(self, value: u64) -> bool {
        match self {
            Compare::More(n) => value > n,
            Compare::Less(n) => value < n,
            Compare::Same(n) => value == n,
        }
    }
}

#[derive(Debug)]
enum Node {
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Not(Box<Node>),
    True,
    False,
    Name(Pattern),
    NameIgnoringCase(Pattern),
    Path(Pattern),
    Type(Vec<Kind>),
    Size(Compare, u64),
    Newer((i64, u32)),
    Days(Compare, i64),
    Links(Compare),
    Inode(Compare),
    PermissionsExact(u32),
    PermissionsAll(u32),
    Empty,
    Prune,
    Print,
    PrintZero,
    List(i64),
    Exec(Vec<String>),
    /// `-exec ... {} +`: index into the batches.
    ExecMany(usize),
    Quit,
}

/// Why a walk ends.
#[derive(Debug)]
pub enum End {
    /// `-quit`.
    Quit,
    /// The tool itself ends.
    Stop(Stop),
}

impl From<Stop> for End {
    fn from(stop: Stop) -> End {
        End::Stop(stop)
    }
}

/// What was found at a place of the walk.
#[derive(Debug)]
pub struct Found<'a> {
    /// Its path.
    pub path: &'a str,
    /// Its metadata (of a link, its own).
    pub metadata: &'a Metadata,
}

/// Whether the walk goes into a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descend {
    /// It does.
    Yes,
    /// `-prune`.
    No,
}

#[derive(Debug)]
struct Batch {
    command: Vec<String>,
    paths: Vec<String>,
    bytes: usize,
}

/// A parsed expression and the state of its walk.
#[derive(Debug)]
pub struct Walk {
    node: Node,
    batches: Vec<Batch>,
    environment: Vec<(String, String)>,
    /// Deepest level that is visited; operands are level 0.
    pub max_depth: u64,
    /// First level whose files are tested.
    pub min_depth: u64,
}

/// Most bytes of paths in one `-exec ... +`.
const BATCH_BYTES: usize = 40 * 1024;
/// Deepest nesting of parentheses and negations.
const DEPTH_MAX: usize = 50;

struct Parser<'a> {
    rest: &'a [String],
    now: i64,
    max_depth: u64,
    min_depth: u64,
    batches: Vec<Batch>,
    has_action: bool,
    depth: usize,
}

/// Parses an expression; `now` is in seconds since 1970. The error is a text for people.
pub fn parse(args: &[String], now: i64) -> Result<Walk, String> {
    let mut parser = Parser {
        rest: args,
        now,
        max_depth: u64::MAX,
        min_depth: 0,
        batches: Vec::new(),
        has_action: false,
        depth: 0,
    };
    let mut node = if args.is_empty() {
        Node::True
    } else {
        parser.or()?
    };
    if let Some(extra) = parser.rest.first() {
        return Err(match extra.as_str() {
            ")" => String::from("invalid expression; you have too many ')'"),
            other => format!("paths must precede expression: '{other}'"),
        });
    }
    if !parser.has_action {
        node = Node::And(Box::new(node), Box::new(Node::Print));
    }
    Ok(Walk {
        node,
        batches: parser.batches,
        environment: unix::process::environment(),
        max_depth: parser.max_depth,
        min_depth: parser.min_depth,
    })
}

impl<'a> Parser<'a> {
    fn take(&mut self) -> Option<&'a String> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    fn at(&self, names: &[&str]) -> bool {
        self.rest
            .first()
            .is_some_and(|a| names.contains(&a.as_str()))
    }

    fn value(&mut self, option: &str) -> Result<&'a str, String> {
        self.take()
            .map(String::as_str)
            .ok_or_else(|| format!("missing argument to `{option}'"))
    }

    fn or(&mut self) -> Result<Node, String> {
        let mut left = self.and()?;
        while self.at(&["-o", "-or"]) {
            self.take();
            left = Node::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Node, String> {
        let mut left = self.not()?;
        loop {
            if self.at(&["-a", "-and"]) {
                self.take();
            } else if self.rest.is_empty() || self.at(&["-o", "-or", ")"]) {
                return Ok(left);
            }
            left = Node::And(Box::new(left), Box::new(self.not()?));
        }
    }

    fn not(&mut self) -> Result<Node, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(String::from("expression nested too deeply"));
        }
        let node = if self.at(&["!", "-not"]) {
            self.take();
            self.not().map(|n| Node::Not(Box::new(n)))
        } else if self.at(&["("]) {
            self.take();
            let node = self.or()?;
            if !self.at(&[")"]) {
                return Err(String::from(
                    "invalid expression; I was expecting to find a ')' somewhere but did not see one.",
                ));
            }
            self.take();
            Ok(node)
        } else {
            self.primary()
        };
        self.depth -= 1;
        node
    }

    fn compare(&mut self, option: &str) -> Result<Compare, String> {
        let text = self.value(option)?;
        Compare::parse(text).ok_or_else(|| format!("invalid argument '{text}' to '{option}'"))
    }

    fn depth_value(&mut self, option: &str) -> Result<u64, String> {
        let text = self.value(option)?;
        text.parse().map_err(|_| {
            format!("Expected a positive decimal integer argument to {option}, but got '{text}'")
        })
    }

    fn primary(&mut self) -> Result<Node, String> {
        let Some(name) = self.take() else {
            return Err(String::from("invalid expression; expected more"));
        };
        let option = name.as_str();
        let action = |parser: &mut Parser<'_>, node| {
            parser.has_action = true;
            Ok(node)
        };
        match option {
            "-true" => Ok(Node::True),
            "-false" => Ok(Node::False),
            "-name" => Ok(Node::Name(Pattern::from_text(self.value(option)?))),
            "-iname" => Ok(Node::NameIgnoringCase(Pattern::from_text(
                &self.value(option)?.to_lowercase(),
            ))),
            "-path" | "-wholename" => Ok(Node::Path(Pattern::from_text(self.value(option)?))),
            "-type" => {
                let text = self.value(option)?;
                let kinds = text.split(',').map(|t| match t {
                    "f" => Some(Kind::Regular),
                    "d" => Some(Kind::Directory),
                    "l" => Some(Kind::Symlink),
                    "c" => Some(Kind::CharDevice),
                    "b" => Some(Kind::BlockDevice),
                    "p" => Some(Kind::Fifo),
                    "s" => Some(Kind::Socket),
                    _ => None,
                });
                let kinds: Option<Vec<Kind>> = kinds.collect();
                kinds
                    .map(Node::Type)
                    .ok_or_else(|| format!("Unknown argument to -type: {text}"))
            }
            "-size" => {
                let text = self.value(option)?;
                let (number, unit) = match text.char_indices().next_back() {
                    Some((at, 'c')) => (text.get(..at), 1),
                    Some((at, 'w')) => (text.get(..at), 2),
                    Some((at, 'b')) => (text.get(..at), 512),
                    Some((at, 'k')) => (text.get(..at), 1 << 10),
                    Some((at, 'M')) => (text.get(..at), 1 << 20),
                    Some((at, 'G')) => (text.get(..at), 1 << 30),
                    _ => (Some(text), 512),
                };
                let compare = number.and_then(Compare::parse);
                let compare =
                    compare.ok_or_else(|| format!("Invalid argument '{text}' to -size"))?;
                Ok(Node::Size(compare, unit))
            }
            "-newer" => {
                let path = self.value(option)?;
                match unix::fs::stat(path) {
                    Ok(m) => Ok(Node::Newer(m.modified)),
                    Err(error) => Err(format!("'{path}': {error}")),
                }
            }
            "-mtime" => Ok(Node::Days(self.compare(option)?, self.now)),
            "-links" => Ok(Node::Links(self.compare(option)?)),
            "-inum" => Ok(Node::Inode(self.compare(option)?)),
            "-perm" => {
                let text = self.value(option)?;
                let (all, digits) = match text.strip_prefix('-') {
                    Some(digits) => (true, digits),
                    None => (false, text),
                };
                match u32::from_str_radix(digits, 8) {
                    Ok(mode) if mode <= 0o7777 && all => Ok(Node::PermissionsAll(mode)),
                    Ok(mode) if mode <= 0o7777 => Ok(Node::PermissionsExact(mode)),
                    _ => Err(format!("invalid mode '{text}'")),
                }
            }
            "-empty" => Ok(Node::Empty),
            "-maxdepth" => {
                self.max_depth = self.depth_value(option)?;
                Ok(Node::True)
            }
            "-mindepth" => {
                self.min_depth = self.depth_value(option)?;
                Ok(Node::True)
            }
            "-prune" => Ok(Node::Prune),
            "-print" => action(self, Node::Print),
            "-print0" => action(self, Node::PrintZero),
            "-ls" => action(self, Node::List(self.now)),
            "-quit" => action(self, Node::Quit),
            "-exec" => self.exec(),
            other => Err(format!("unknown predicate `{other}'")),
        }
    }

    fn exec(&mut self) -> Result<Node, String> {
        self.has_action = true;
        let mut command: Vec<String> = Vec::new();
        while let Some(arg) = self.take() {
            if arg == ";" && !command.is_empty() {
                return Ok(Node::Exec(command));
            }
            if arg == "+" && command.last().is_some_and(|last| last == "{}") {
                command.pop();
                self.batches.push(Batch {
                    command,
                    paths: Vec::new(),
                    bytes: 0,
                });
                return Ok(Node::ExecMany(self.batches.len() - 1));
            }
            command.push(arg.clone());
        }
        Err(String::from("missing argument to `-exec'"))
    }
}

impl Walk {
    /// Evaluates the expression for one file.
    pub fn evaluate(&mut self, tool: &mut Tool, found: &Found<'_>) -> Result<Descend, End> {
        let mut descend = Descend::Yes;
        let node = core::mem::replace(&mut self.node, Node::True);
        let result = self.node(&node, tool, found, &mut descend);
        self.node = node;
        result.map(|_| descend)
    }

    fn node(
        &mut self,
        node: &Node,
        tool: &mut Tool,
        found: &Found<'_>,
        descend: &mut Descend,
    ) -> Result<bool, End> {
        let m = found.metadata;
        Ok(match node {
            Node::And(a, b) => {
                self.node(a, tool, found, descend)? && self.node(b, tool, found, descend)?
            }
            Node::Or(a, b) => {
                self.node(a, tool, found, descend)? || self.node(b, tool, found, descend)?
            }
            Node::Not(a) => !self.node(a, tool, found, descend)?,
            Node::True => true,
            Node::False => false,
            Node::Name(pattern) => pattern.matches(unix::path::base_name(found.path)),
            Node::NameIgnoringCase(pattern) => {
                pattern.matches(&unix::path::base_name(found.path).to_lowercase())
            }
            Node::Path(pattern) => pattern.matches(found.path),
            Node::Type(kinds) => kinds.contains(&m.kind()),
            Node::Size(compare, unit) => compare.holds(m.size.div_ceil(*unit)),
            Node::Newer(than) => m.modified > *than,
            Node::Days(compare, now) => {
                let age = u64::try_from(now.saturating_sub(m.modified.0)).unwrap_or(0);
                compare.holds(age / 86_400)
            }
            Node::Links(compare) => compare.holds(m.links),
            Node::Inode(compare) => compare.holds(m.inode),
            Node::PermissionsExact(mode) => m.mode & 0o7777 == *mode,
            Node::PermissionsAll(mode) => m.mode & mode == *mode,
            Node::Empty => match m.kind() {
                Kind::Regular => m.size == 0,
                Kind::Directory => unix::fs::read_dir(found.path).is_ok_and(|e| e.is_empty()),
                _ => false,
            },
            Node::Prune => {
                *descend = Descend::No;
                true
            }
            Node::Print => {
                writeln!(tool.out, "{}", found.path)?;
                true
            }
            Node::PrintZero => {
                write!(tool.out, "{}\0", found.path)?;
                true
            }
            Node::List(now) => {
                let options = LongOptions {
                    now: *now,
                    ..LongOptions::default()
                };
                let line = listing::long(&[(None, Some(*m), String::from(found.path))], &options);
                write!(tool.out, "{:9} {:6} {line}", m.inode, m.blocks.div_ceil(2))?;
                true
            }
            Node::Exec(command) => {
                let args: Vec<String> = command
                    .iter()
                    .map(|a| a.replace("{}", found.path))
                    .collect();
                tool.out.flush()?;
                crate::command::run(tool, &args, &self.environment, Naming::Quoted) == 0
            }
            Node::ExecMany(index) => {
                let Some(batch) = self.batches.get_mut(*index) else {
                    return Ok(true);
                };
                batch.paths.push(String::from(found.path));
                batch.bytes += found.path.len() + 1;
                if batch.bytes > BATCH_BYTES {
                    run_batch(tool, batch, &self.environment)?;
                }
                true
            }
            Node::Quit => return Err(End::Quit),
        })
    }

    /// Runs what `-exec ... +` has gathered.
    pub fn finish(mut self, tool: &mut Tool) -> Result<(), Stop> {
        for batch in self.batches.iter_mut().filter(|b| !b.paths.is_empty()) {
            run_batch(tool, batch, &self.environment)?;
        }
        Ok(())
    }
}

fn run_batch(
    tool: &mut Tool,
    batch: &mut Batch,
    environment: &[(String, String)],
) -> Result<(), Stop> {
    let mut args = batch.command.clone();
    args.append(&mut batch.paths);
    batch.bytes = 0;
    tool.out.flush()?;
    if crate::command::run(tool, &args, environment, Naming::Quoted) != 0 {
        tool.status = 1;
    }
    Ok(())
}
