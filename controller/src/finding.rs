//! What there is to say about an object: what is wrong with it, or odd, and what to do.
//!
//! Always: a [`Code`] never changes its meaning. A finding names its object and field; where the object was read from a file, it
//! [shows](crate::Object::show) the place too.

use std::fmt;

use weir_model::diagnostic::{self, Diagnostic, Place, Severity};
use weir_model::yaml::document::Way;

use crate::object::Id;

macro_rules! codes {
    ($($name:ident = $number:literal $severity:ident $model:ident, $cause:literal, $help:literal;)*) => {
        /// What kind of finding: `WEIR-0101`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code { $(#[doc = $cause] $name,)* }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its number.
            #[must_use]
            pub const fn number(self) -> u16 {
                match self { $(Self::$name => $number,)* }
            }

            /// How bad it is.
            #[must_use]
            pub const fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)* }
            }

            /// What has happened, in general.
            #[must_use]
            pub const fn cause(self) -> &'static str {
                match self { $(Self::$name => $cause,)* }
            }

            /// What to do about it, in general.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $(Self::$name => $help,)* }
            }

            const fn model(self) -> diagnostic::Code {
                match self { $(Self::$name => diagnostic::Code::$model,)* }
            }
        }
    };
}

codes! {
    NotAnObject = 1 Error WrongType, "A document is not a Kubernetes object.", "Write apiVersion, kind, metadata.name and spec.";
    UnknownKind = 2 Warning UnknownValue, "Nothing here reads this kind.", "Look at the apiVersion and the kind; other tools may read it.";
    Undecodable = 3 Error WrongType, "A field holds a value of another type than it should.", "Write the type that the field has.";
    UnknownField = 4 Warning UnknownField, "The kind has no such field: the API server would drop it.", "Look at the spelling and the indentation.";
    Duplicate = 5 Error DuplicateName, "Two objects have one kind, namespace and name.", "Rename or remove one of them.";
    Invalid = 101 Error OutOfRange, "A field's value is not allowed.", "Write a value that is.";
    Missing = 102 Error Missing, "A required field is not there.", "Write it.";
    Conflict = 103 Error Conflict, "Fields contradict or exclude each other.", "Keep one of them.";
    Unsupported = 104 Error UnknownValue, "Weir does not do this.", "The message names what to use instead.";
    NoEffect = 105 Warning NoEffect, "What is written has no effect.", "Remove it, or write what was meant.";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WEIR-{:04}", self.number())
    }
}

/// One thing to say about one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What kind of finding.
    pub code: Code,
    /// About which object.
    pub object: Id,
    /// Which field: `spec.http[0].route`.
    pub way: Way,
    /// The cause, here.
    pub message: String,
    /// What to do, here; the code's own help if it is empty.
    pub help: String,
}

impl Finding {
    /// A finding about a field of `object`.
    #[must_use]
    pub fn new(code: Code, object: &Id, way: Way, message: impl Into<String>) -> Self {
        Self { code, object: object.clone(), way, message: message.into(), help: String::new() }
    }

    /// The same with something particular to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }

    /// Whether the object is refused for it.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.code.severity() == Severity::Error
    }

    /// As people are shown it, with the place of its field.
    #[must_use]
    pub fn diagnostic(&self, place: Option<Place>) -> Diagnostic {
        let help = if self.help.is_empty() { self.code.help() } else { &self.help };
        Diagnostic {
            severity: self.code.severity(),
            code: self.code.model(),
            place,
            path: format!("{} {}", self.object, self.way).trim_end().to_owned(),
            message: format!("{} ({})", self.message, self.code),
            help: help.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_code_has_a_number_of_its_own() {
        let numbers: BTreeSet<u16> = Code::ALL.iter().map(|code| code.number()).collect();
        assert_eq!(numbers.len(), Code::ALL.len());
        assert_eq!(Code::Invalid.to_string(), "WEIR-0101");
    }
}
