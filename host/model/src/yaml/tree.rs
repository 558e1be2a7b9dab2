//! From YAML text to a tree of nodes with their places.
//!
//! Always: the tree is bounded, in depth and in what aliases make of it, whatever the text is. Keys keep their order, and may
//! repeat: who reads the tree decides.

use std::borrow::Cow;
use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag};

/// Nesting of lists and mappings.
pub(super) const MAX_DEPTH: usize = 64;
/// Nodes of a file, with every alias counted as what it stands for, and every 32 bytes of text counted as one more.
const MAX_COST: usize = 1_500_000;

/// Where a node stands; lines and columns from 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) length: u32,
}

#[derive(Debug, Clone)]
pub(super) struct Node<'t> {
    pub(super) mark: Mark,
    pub(super) tag: Option<Box<str>>,
    pub(super) value: Value<'t>,
}

#[derive(Debug, Clone)]
pub(super) enum Value<'t> {
    /// The text, and whether it stands without quotes.
    Scalar(Cow<'t, str>, bool),
    List(Vec<Node<'t>>),
    Map(Vec<(Node<'t>, Node<'t>)>),
}

impl Node<'_> {
    /// The same without the text that it was read from.
    pub(super) fn into_owned(self) -> Node<'static> {
        let value = match self.value {
            Value::Scalar(text, plain) => Value::Scalar(Cow::Owned(text.into_owned()), plain),
            Value::List(items) => Value::List(items.into_iter().map(Node::into_owned).collect()),
            Value::Map(pairs) => Value::Map(pairs.into_iter().map(|(key, value)| (key.into_owned(), value.into_owned())).collect()),
        };
        Node { mark: self.mark, tag: self.tag, value }
    }
}

/// Why there is no tree.
#[derive(Debug)]
pub(super) enum Fault {
    Syntax(String),
    Alias,
    Depth,
    Cost,
}

/// A list or mapping that is not complete.
struct Open<'t> {
    mark: Mark,
    tag: Option<Box<str>>,
    anchor: usize,
    mapping: bool,
    items: Vec<Node<'t>>,
    cost: usize,
}

/// Documents of a file that were read before anything went wrong, and what went wrong.
pub(super) fn documents(text: &str) -> (Vec<Node<'_>>, Option<(Fault, Mark)>) {
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(text);
    let fault = builder.run(&mut parser).err();
    (builder.documents, fault)
}

#[derive(Default)]
struct Builder<'t> {
    documents: Vec<Node<'t>>,
    open: Vec<Open<'t>>,
    anchors: HashMap<usize, (Node<'t>, usize)>,
    cost: usize,
}

impl<'t> Builder<'t> {
    fn run(&mut self, parser: &mut Parser<'t, StrInput<'t>>) -> Result<(), (Fault, Mark)> {
        while let Some(event) = parser.next_event() {
            let (event, span) = event.map_err(|error| {
                let at = error.marker();
                (Fault::Syntax(error.info().to_owned()), Mark { line: number(at.line()), column: number(at.col() + 1), length: 1 })
            })?;
            let mark = mark(&span);
            self.event(event, mark).map_err(|fault| (fault, mark))?;
        }
        Ok(())
    }

    fn event(&mut self, event: Event<'t>, mark: Mark) -> Result<(), Fault> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let cost = 1 + text.len() / 32;
                self.spend(cost)?;
                let value = Value::Scalar(text, style == ScalarStyle::Plain);
                self.close(Node { mark, tag: tag.map(|tag| name(&tag)), value }, anchor, cost)
            }
            Event::SequenceStart(anchor, tag) => self.begin(mark, tag, anchor, false),
            Event::MappingStart(anchor, tag) => self.begin(mark, tag, anchor, true),
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else { return Ok(()) };
                let value = if open.mapping { Value::Map(pairs(open.items)) } else { Value::List(open.items) };
                self.close(Node { mark: open.mark, tag: open.tag, value }, open.anchor, open.cost)
            }
            Event::Alias(anchor) => {
                let (node, cost) = self.anchors.get(&anchor).ok_or(Fault::Alias)?;
                let (node, cost) = (node, *cost);
                if self.open.len() + depth(node) > MAX_DEPTH {
                    return Err(Fault::Depth);
                }
                // Counted before it is made.
                if self.cost + cost > MAX_COST {
                    return Err(Fault::Cost);
                }
                let node = node.clone();
                self.spend(cost)?;
                self.close(node, 0, cost)
            }
            Event::DocumentEnd => {
                self.anchors.clear();
                Ok(())
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) => Ok(()),
        }
    }

    fn begin(&mut self, mark: Mark, tag: Option<Cow<'t, Tag>>, anchor: usize, mapping: bool) -> Result<(), Fault> {
        if self.open.len() >= MAX_DEPTH {
            return Err(Fault::Depth);
        }
        self.spend(1)?;
        self.open.push(Open { mark, tag: tag.map(|tag| name(&tag)), anchor, mapping, items: Vec::new(), cost: 1 });
        Ok(())
    }

    fn close(&mut self, node: Node<'t>, anchor: usize, cost: usize) -> Result<(), Fault> {
        if anchor != 0 {
            self.spend(cost)?;
            self.anchors.insert(anchor, (node.clone(), cost));
        }
        match self.open.last_mut() {
            Some(open) => {
                open.cost += cost;
                open.items.push(node);
            }
            None => self.documents.push(node),
        }
        Ok(())
    }

    fn spend(&mut self, cost: usize) -> Result<(), Fault> {
        self.cost += cost;
        if self.cost > MAX_COST { Err(Fault::Cost) } else { Ok(()) }
    }
}

fn depth(node: &Node<'_>) -> usize {
    match &node.value {
        Value::Scalar(..) => 0,
        Value::List(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Map(pairs) => 1 + pairs.iter().map(|(key, value)| depth(key).max(depth(value))).max().unwrap_or(0),
    }
}

/// Keys and values in turn, in pairs.
fn pairs(items: Vec<Node<'_>>) -> Vec<(Node<'_>, Node<'_>)> {
    let mut pairs = Vec::with_capacity(items.len() / 2);
    let mut items = items.into_iter();
    while let (Some(key), Some(value)) = (items.next(), items.next()) {
        pairs.push((key, value));
    }
    pairs
}

fn name(tag: &Tag) -> Box<str> {
    if tag.is_yaml_core_schema() { format!("!!{}", tag.suffix).into() } else { tag.to_string().into() }
}

fn mark(span: &Span) -> Mark {
    let one_line = span.start.line() == span.end.line();
    let length = if one_line { span.end.col().saturating_sub(span.start.col()).max(1) } else { 1 };
    Mark { line: number(span.start.line()), column: number(span.start.col() + 1), length: number(length) }
}

fn number(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> Option<Fault> {
        documents(text).1.map(|(fault, _)| fault)
    }

    #[test]
    fn documents_and_aliases() {
        let (documents, fault) = documents("a: &x [1, 2]\nb: *x\n---\nc: 3\n");
        assert!(fault.is_none());
        assert_eq!(documents.len(), 2);
        let Value::Map(pairs) = &documents[0].value else { panic!("a mapping") };
        let (_, alias) = &pairs[1];
        assert!(matches!(&alias.value, Value::List(items) if items.len() == 2));
        assert_eq!(pairs[1].0.mark, Mark { line: 2, column: 1, length: 1 });
    }

    #[test]
    fn a_bomb_is_refused_before_it_goes_off() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let before = format!("*a{}, ", level - 1).repeat(10);
            text.push_str(&format!("a{level}: &a{level} [{before}]\n"));
        }
        assert!(matches!(fault(&text), Some(Fault::Cost)), "{:?}", fault(&text));
        let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), "*a, ".repeat(100_000));
        assert!(matches!(fault(&long), Some(Fault::Cost)), "long texts count");
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(fault(&nested(MAX_DEPTH)).is_none());
        assert!(matches!(fault(&nested(MAX_DEPTH + 1)), Some(Fault::Depth)));
        let mut text = String::new();
        for level in 0..MAX_DEPTH {
            let inner = if level == 0 { "1".to_owned() } else { format!("*a{}", level - 1) };
            text.push_str(&format!("a{level}: &a{level} [{inner}]\n"));
        }
        assert!(matches!(fault(&text), Some(Fault::Depth)), "by aliases too");
        assert!(matches!(fault("a: &a [*a]"), Some(Fault::Alias | Fault::Syntax(_))), "an alias of itself");
    }
}
