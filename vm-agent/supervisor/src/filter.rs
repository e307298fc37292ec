//! containerd's filter language (`id==x`, `labels."a.b"~=^c,topic==/tasks/exit`), as list calls use it.
//!
//! A filter is a list of selectors joined by `,` that must all match; several filters are joined by "or".
//! A selector is a field path, alone (present) or with an operator `==`, `!=` or `~=` and a value.

use std::iter::Peekable;
use std::str::Chars;

use crate::error::{Error, Result};

/// Parsed filters; none at all match everything.
#[derive(Debug, Default)]
pub struct Filters(Vec<Vec<Selector>>);

#[derive(Debug)]
struct Selector {
    path: Vec<String>,
    test: Test,
}

#[derive(Debug)]
enum Test {
    Present,
    Equal(String),
    NotEqual(String),
    Matches(regex_lite::Regex),
}

impl Filters {
    pub fn parse<S: AsRef<str>>(filters: &[S]) -> Result<Self> {
        let parse_one = |text: &str| {
            Parser {
                chars: text.chars().peekable(),
            }
            .filter()
            .map_err(|reason| {
                Error::InvalidArgument(format!("filters: parse error: [{text}]: {reason}"))
            })
        };
        let parsed: Result<Vec<_>> = filters
            .iter()
            .map(|text| parse_one(text.as_ref()))
            .collect();
        Ok(Self(parsed?))
    }

    /// `field` looks up a path such as `["labels", "a.b"]`; `None` means absent.
    pub fn matches(&self, field: impl Fn(&[&str]) -> Option<String>) -> bool {
        let holds = |selector: &Selector| {
            let path: Vec<&str> = selector.path.iter().map(String::as_str).collect();
            selector.test.holds(field(&path))
        };
        self.0.is_empty() || self.0.iter().any(|selectors| selectors.iter().all(holds))
    }
}

impl Test {
    fn holds(&self, value: Option<String>) -> bool {
        match self {
            Test::Present => value.is_some(),
            Test::Equal(wanted) => value.as_ref() == Some(wanted),
            Test::NotEqual(unwanted) => value.as_ref() != Some(unwanted),
            Test::Matches(regex) => value.is_some_and(|value| regex.is_match(&value)),
        }
    }
}

struct Parser<'a> {
    chars: Peekable<Chars<'a>>,
}

type Parsed<T> = std::result::Result<T, String>;

impl Parser<'_> {
    fn filter(&mut self) -> Parsed<Vec<Selector>> {
        let mut selectors = Vec::new();
        self.skip_space();
        if self.chars.peek().is_none() {
            return Ok(selectors);
        }
        loop {
            selectors.push(self.selector()?);
            self.skip_space();
            match self.chars.next() {
                None => return Ok(selectors),
                Some(',') => {}
                Some(other) => return Err(format!("unexpected {other:?}, want , or the end")),
            }
        }
    }

    fn selector(&mut self) -> Parsed<Selector> {
        let mut path = vec![self.path_part()?];
        while self.chars.next_if_eq(&'.').is_some() {
            path.push(self.path_part()?);
        }
        self.skip_space();
        let test = match self.chars.peek() {
            None | Some(',') => Test::Present,
            Some('=') => {
                self.operator('=')?;
                Test::Equal(self.value()?)
            }
            Some('!') => {
                self.operator('!')?;
                Test::NotEqual(self.value()?)
            }
            Some('~') => {
                self.operator('~')?;
                let pattern = self.value()?;
                Test::Matches(regex_lite::Regex::new(&pattern).map_err(|e| e.to_string())?)
            }
            Some(other) => return Err(format!("unexpected {other:?}, want an operator")),
        };
        Ok(Selector { path, test })
    }

    fn operator(&mut self, first: char) -> Parsed<()> {
        self.chars.next_if_eq(&first);
        self.chars
            .next_if_eq(&'=')
            .map(|_| ())
            .ok_or(format!("want {first}="))
    }

    fn path_part(&mut self) -> Parsed<String> {
        self.skip_space();
        if self.chars.peek() == Some(&'"') {
            return self.quoted('"');
        }
        let mut part = String::new();
        while let Some(c) = self
            .chars
            .next_if(|c| c.is_alphanumeric() || "_-/".contains(*c))
        {
            part.push(c);
        }
        if part.is_empty() {
            Err("want a field name".into())
        } else {
            Ok(part)
        }
    }

    fn value(&mut self) -> Parsed<String> {
        self.skip_space();
        match self.chars.peek().copied() {
            Some('"') => self.quoted('"'),
            // A pattern between slashes or bars may hold commas. A value such as `/tasks/exit`
            // starts with a slash too: it is a pattern only when the slash closes right at the end.
            Some(delimiter @ ('/' | '|')) if self.is_delimited(delimiter) => self.quoted(delimiter),
            _ => {
                let mut value = String::new();
                while let Some(c) = self.chars.next_if(|c| *c != ',') {
                    value.push(c);
                }
                Ok(value.trim_end().to_owned())
            }
        }
    }

    fn is_delimited(&self, delimiter: char) -> bool {
        let rest: String = self.chars.clone().skip(1).collect();
        rest.find(delimiter).is_some_and(|end| {
            let after = rest[end + delimiter.len_utf8()..].trim_start();
            after.is_empty() || after.starts_with(',')
        })
    }

    fn quoted(&mut self, quote: char) -> Parsed<String> {
        self.chars.next();
        let mut text = String::new();
        loop {
            match self.chars.next() {
                None => return Err(format!("unterminated {quote}")),
                Some(c) if c == quote => return Ok(text),
                Some('\\') => match self.chars.next() {
                    Some('n') if quote == '"' => text.push('\n'),
                    Some('t') if quote == '"' => text.push('\t'),
                    Some(c) if c == quote || (quote == '"' && c == '\\') => text.push(c),
                    Some(c) => text.extend(['\\', c]),
                    None => return Err(format!("unterminated {quote}")),
                },
                Some(c) => text.push(c),
            }
        }
    }

    fn skip_space(&mut self) {
        while self.chars.next_if(|c| c.is_whitespace()).is_some() {}
    }
}

/// Looks a label up: the rest of the path is its name, since unquoted names contain dots.
pub fn label(labels: &std::collections::HashMap<String, String>, path: &[&str]) -> Option<String> {
    labels.get(&path.join(".")).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(path: &[&str]) -> Option<String> {
        match path {
            ["id"] => Some("web".into()),
            ["topic"] => Some("/tasks/exit".into()),
            ["labels", rest @ ..] if rest.join(".") == "com.docker.x" => Some("a,b".into()),
            _ => None,
        }
    }

    #[test]
    fn selectors() {
        let cases: &[(&[&str], bool)] = &[
            (&[], true),
            (&["id==web"], true),
            (&["id == web"], true),
            (&["id==db"], false),
            (&["id==db", "id==web"], true),
            (&["id!=db"], true),
            (&["id~=^w"], true),
            (&["id~=/^w.*b$/"], true),
            (&["id~=|^x|"], false),
            (&["labels.\"com.docker.x\"==\"a,b\""], true),
            (&["labels.com.docker.x"], true),
            (&["labels.missing"], false),
            (&["labels.missing!=x"], true),
            (&["topic==/tasks/exit,id==web"], true),
            (&["topic~=\"^/tasks/\""], true),
            (&["topic==\"/tasks/exit\""], true),
        ];
        for (filters, expected) in cases {
            let parsed = Filters::parse(filters).unwrap();
            assert_eq!(parsed.matches(field), *expected, "{filters:?}");
        }
    }

    #[test]
    fn errors() {
        for bad in ["id=", "==x", "id==\"x", "id~=(", "id x", "a,,b"] {
            assert!(Filters::parse(&[bad]).is_err(), "{bad}");
        }
    }
}
