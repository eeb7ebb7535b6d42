//! Here-documents: their texts come after the line that names them, so a tree first holds their
//! numbers, which this replaces.

use alloc::string::String;

use crate::lexer::Document;
use crate::syntax::{
    AndOr, Command, Compound, Extents, List, Located, Part, Redirect, RedirectKind,
};

fn fill_redirects(redirects: &mut [Redirect], documents: &[Document]) {
    for redirect in redirects
        .iter_mut()
        .filter(|r| r.kind == RedirectKind::Here)
    {
        if let [Part::Plain(number)] = redirect.target.as_slice()
            && let Some(document) = number.parse().ok().and_then(|n: usize| documents.get(n))
        {
            redirect.target = document.text.clone();
        }
    }
}

fn fill_list(list: &mut List, documents: &[Document]) {
    for item in list {
        fill_and_or(item, documents);
    }
}

/// Puts the texts of here-documents in the place of their numbers, in everything below `item`.
pub(crate) fn fill_and_or(item: &mut AndOr, documents: &[Document]) {
    let pipelines = core::iter::once(&mut item.first).chain(item.rest.iter_mut().map(|(_, p)| p));
    for command in pipelines.flat_map(|p| p.commands.iter_mut()) {
        fill_located(command, documents);
    }
    append(&mut item.source, &item.extent, documents);
}

fn fill_located(command: &mut Located, documents: &[Document]) {
    fill_command(&mut command.command, documents);
    append(&mut command.source, &command.extent, documents);
}

/// Adds the documents that come after the end of a command to its source: those inside it are there.
fn append(source: &mut String, extent: &Extents, documents: &[Document]) {
    let own = documents.get(extent.documents.clone()).unwrap_or_default();
    let mut after = own.iter().filter(|d| d.start >= extent.end).peekable();
    if after.peek().is_some() {
        source.push('\n');
    }
    for document in after {
        source.push_str(&document.source);
    }
}

fn fill_command(command: &mut Command, documents: &[Document]) {
    match command {
        Command::Simple(simple) => fill_redirects(&mut simple.redirects, documents),
        Command::Function { body, .. } => fill_located(body, documents),
        Command::Compound(compound, redirects) => {
            fill_redirects(redirects, documents);
            match compound {
                Compound::Group(list) | Compound::Subshell(list) | Compound::For(_, _, list) => {
                    fill_list(list, documents);
                }
                Compound::If(branches, otherwise) => {
                    for (condition, body) in branches {
                        fill_list(condition, documents);
                        fill_list(body, documents);
                    }
                    if let Some(list) = otherwise {
                        fill_list(list, documents);
                    }
                }
                Compound::Loop(_, condition, body) => {
                    fill_list(condition, documents);
                    fill_list(body, documents);
                }
                Compound::Case(_, arms) => {
                    for (_, body) in arms {
                        fill_list(body, documents);
                    }
                }
            }
        }
    }
}
