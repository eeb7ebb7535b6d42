//! A run of the shell: a script, a command string, or a person at a terminal.

use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;

use unix::process::Terminal;

use crate::complete;
use crate::edit::{Editor, Event};
use crate::interp::{Flow, Interpreter};
use crate::lexer::SyntaxError;
use crate::parse::Parser;
use crate::state::Streams;

/// Runs a whole text and gives the exit status.
pub fn run_script(shell: &mut Interpreter, text: &str) -> i32 {
    match shell.run_text(text, &Streams::own()) {
        Ok(status) => status,
        Err(Flow::Exit(status) | Flow::Return(status) | Flow::Abort(status)) => status,
        Err(Flow::Break(_) | Flow::Continue(_)) => 0,
    }
}

/// Talks with the person at the terminal until `exit` or ctrl-D; gives the exit status.
pub fn run_interactive(shell: &mut Interpreter, terminal: Terminal) -> i32 {
    let terminal = Rc::new(terminal);
    shell.terminal = Some(terminal.clone());
    let io = Streams::own();
    let mut editor = Editor::new();
    let mut text = String::new();
    loop {
        if text.is_empty() {
            report_jobs(shell, &io);
        }
        let prompt = if text.is_empty() {
            prompt(shell)
        } else {
            String::from("> ")
        };
        match read_line(&mut editor, shell, &terminal, &prompt, &io) {
            Typed::Line(line) => {
                text.push_str(&line);
                text.push('\n');
            }
            Typed::Interrupted => {
                text.clear();
                shell.state.status = crate::interp::INTERRUPTED;
                continue;
            }
            Typed::End if text.is_empty() => return shell.state.status,
            Typed::End => {
                text.clear();
                continue;
            }
        }
        if matches!(check(&text), Some(SyntaxError::Incomplete(_))) {
            continue;
        }
        let line = core::mem::take(&mut text);
        editor.remember(line.trim_end());
        // A Ctrl-C that came too late for the last command is not meant for this one.
        terminal.take_interrupt();
        match shell.run_text(&line, &io) {
            Ok(status) => shell.state.status = status,
            Err(Flow::Exit(status)) => return status,
            Err(Flow::Return(status) | Flow::Abort(status)) => shell.state.status = status,
            Err(Flow::Break(_) | Flow::Continue(_)) => {}
        }
    }
}

/// What is wrong with a text, if anything.
fn check(text: &str) -> Option<SyntaxError> {
    let mut parser = Parser::new(text);
    loop {
        match parser.next_command() {
            Ok(None) => return None,
            Ok(Some(_)) => {}
            Err(error) => return Some(error),
        }
    }
}

fn prompt(shell: &Interpreter) -> String {
    match shell.state.get("PS1") {
        Some(text) => String::from(text),
        None => format!("{} # ", shell.state.directory),
    }
}

fn report_jobs(shell: &mut Interpreter, io: &Streams) {
    let mut kept = alloc::vec::Vec::new();
    for mut job in core::mem::take(&mut shell.state.jobs) {
        if job
            .children
            .iter_mut()
            .any(|c| matches!(c.try_wait(), Ok(None)))
        {
            kept.push(job);
        } else {
            let text = format!("[{}] Done  {}\n", job.number, job.text);
            // Nowhere to report that a message cannot be shown.
            let _ = io.errors.write_all(text.as_bytes());
        }
    }
    shell.state.jobs = kept;
}

enum Typed {
    Line(String),
    Interrupted,
    End,
}

fn read_line(
    editor: &mut Editor,
    shell: &Interpreter,
    terminal: &Terminal,
    prompt: &str,
    io: &Streams,
) -> Typed {
    let show = |text: &str| {
        // A terminal that takes nothing any more shows as the end of input.
        let _ = io.output.write_all(text.as_bytes());
    };
    if terminal.set_raw().is_err() {
        return Typed::End;
    }
    editor.reset();
    let columns = terminal.columns();
    show(&editor.render(prompt, columns));
    let typed = loop {
        let mut byte = [0u8];
        match io.input.read(&mut byte) {
            Ok(1) => {}
            _ => break Typed::End,
        }
        let [byte] = byte;
        match editor.feed(byte) {
            Event::None => {}
            Event::Appended(c)
                if prompt.chars().count() + editor.text().chars().count() < columns =>
            {
                show(c.encode_utf8(&mut [0; 4]));
            }
            Event::Appended(_) | Event::Changed => show(&editor.render(prompt, columns)),
            Event::Line(line) => break Typed::Line(line),
            Event::EndOfFile => break Typed::End,
            Event::Interrupt => {
                show("^C");
                break Typed::Interrupted;
            }
            Event::ClearScreen => {
                show("\x1b[H\x1b[2J");
                show(&editor.render(prompt, columns));
            }
            Event::Complete => {
                let found = complete::complete(&editor.before_cursor(), &shell.state);
                if found.insert.is_empty() && !found.candidates.is_empty() {
                    show("\r\n");
                    show(&format!("{}\r\n", found.candidates.join("  ")));
                }
                editor.insert(&found.insert);
                show(&editor.render(prompt, columns));
            }
        }
    };
    show("\r\n");
    // If the mode cannot be set, neither can it be read in: the next line ends the session.
    let _ = terminal.set_cooked();
    typed
}
