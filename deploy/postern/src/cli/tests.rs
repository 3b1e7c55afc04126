//! Every command says what it does and shows an example, every option what it is.

use clap::{Command, CommandFactory};

use super::*;

#[test]
fn every_command_and_every_option_explains_itself() {
    let mut wanting = Vec::new();
    look(&Arguments::command(), "postern", &mut wanting);
    assert!(wanting.is_empty(), "without a word of help:\n{}", wanting.join("\n"));
}

fn look(command: &Command, path: &str, wanting: &mut Vec<String>) {
    if command.get_about().is_none() {
        wanting.push(format!("{path}: what it does (a comment above it)"));
    }
    for argument in command.get_arguments() {
        if argument.get_help().is_none() {
            wanting.push(format!("{path} {}: what it is (a comment above it)", argument.get_id()));
        }
    }
    let example = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let shows_itself = example.strip_prefix("Example: ").is_some_and(|it| it.starts_with(path));
    if !command.has_subcommands() && !shows_itself {
        wanting.push(format!("{path}: an example (#[command(after_help = \"Example: {path} ...\")])"));
    }
    for below in command.get_subcommands() {
        look(below, &format!("{path} {}", below.get_name()), wanting);
    }
}

#[test]
fn every_example_is_a_command_line_that_is_understood() {
    let mut examples = Vec::new();
    gather(&Arguments::command(), &mut examples);
    assert!(examples.len() > 50);
    for example in examples {
        // What follows > is the shell's.
        let line = example.split(" > ").next().unwrap();
        let words = words(line);
        if let Err(error) = Arguments::try_parse_from(&words) {
            panic!("{example}\n{error}");
        }
    }
}

fn gather(command: &Command, examples: &mut Vec<String>) {
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    examples.extend(help.strip_prefix("Example: ").map(str::to_owned));
    for below in command.get_subcommands() {
        gather(below, examples);
    }
}

/// As a shell splits a line, as far as examples need it.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for character in line.chars() {
        match character {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            other => words.last_mut().unwrap().push(other),
        }
    }
    words
}
