//! Words of a Dockerfile: quotes, escapes and variables (`$NAME`, `${NAME:-default}`).

use crate::error::{Error, Result};

/// Looks a variable up.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Replaces variables and takes quotes away: one word, whatever blanks are in it.
pub fn word(text: &str, escape: char, lookup: Lookup<'_>) -> Result<String> {
    Ok(words_of(text, escape, lookup, false)?.concat())
}

/// The same, split at blanks outside quotes.
pub fn words(text: &str, escape: char, lookup: Lookup<'_>) -> Result<Vec<String>> {
    words_of(text, escape, lookup, true)
}

fn words_of(text: &str, escape: char, lookup: Lookup<'_>, split: bool) -> Result<Vec<String>> {
    let chars: Vec<char> = text.chars().collect();
    let (mut out, mut current, mut at) = (Vec::new(), String::new(), 0);
    // A word may be empty and still be one: `""`.
    let mut started = false;
    while let Some(&c) = chars.get(at) {
        at += 1;
        match c {
            '\'' => {
                started = true;
                let end = chars[at..].iter().position(|c| *c == '\'');
                let end = end.ok_or_else(|| unterminated("single", text))?;
                current.extend(&chars[at..at + end]);
                at += end + 1;
            }
            '"' => {
                started = true;
                loop {
                    match chars.get(at) {
                        None => return Err(unterminated("double", text)),
                        Some('"') => break,
                        Some('$') => {
                            at += 1;
                            current += &variable(&chars, &mut at, lookup)?;
                            continue;
                        }
                        Some(c) if *c == escape => match chars.get(at + 1) {
                            Some(next) if *next == '"' || *next == '$' || *next == escape => {
                                current.push(*next);
                                at += 1;
                            }
                            _ => current.push(escape),
                        },
                        Some(c) => current.push(*c),
                    }
                    at += 1;
                }
                at += 1;
            }
            '$' => {
                let value = variable(&chars, &mut at, lookup)?;
                started |= !value.is_empty();
                current += &value;
            }
            c if c == escape => {
                started = true;
                if let Some(next) = chars.get(at) {
                    current.push(*next);
                    at += 1;
                }
            }
            c if split && c.is_whitespace() => {
                if started {
                    out.push(std::mem::take(&mut current));
                }
                started = false;
            }
            c => {
                started = true;
                current.push(c);
            }
        }
    }
    if started {
        out.push(current);
    }
    Ok(out)
}

fn unterminated(kind: &str, text: &str) -> Error {
    Error::instruction(format!(
        "unexpected end of statement while looking for matching {kind}-quote: {text}"
    ))
}

/// What follows a `$`.
fn variable(chars: &[char], at: &mut usize, lookup: Lookup<'_>) -> Result<String> {
    let is_name = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
    if chars.get(*at) != Some(&'{') {
        let start = *at;
        let special = chars
            .get(start)
            .is_some_and(|c| matches!(c, '@' | '*' | '#' | '?' | '-' | '!' | '0'..='9'));
        let len = match special {
            true => 1,
            false => chars[start..].iter().take_while(|c| is_name(c)).count(),
        };
        if len == 0 {
            return Ok("$".into());
        }
        *at += len;
        let name: String = chars[start..start + len].iter().collect();
        return Ok(lookup(&name).unwrap_or_default());
    }
    *at += 1;
    let rest = &chars[*at..];
    // The matching brace: a default may hold variables itself.
    let mut depth = 1;
    let end = rest.iter().position(|c| {
        depth += match c {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        depth == 0
    });
    let text: String = rest.iter().collect();
    let end =
        end.ok_or_else(|| Error::instruction(format!("syntax error: missing '}}' in ${{{text}")))?;
    *at += end + 1;
    let body = &rest[..end];
    let len = body.iter().take_while(|c| is_name(c)).count();
    let name: String = body[..len].iter().collect();
    let modifier: String = body[len..].iter().collect();
    let bad = || Error::instruction(format!("unsupported modifier ({modifier}) in substitution"));
    if name.is_empty() {
        return Err(Error::instruction("syntax error: bad substitution"));
    }
    let value = lookup(&name);
    let (empty_counts, operator) = match modifier.strip_prefix(':') {
        Some(rest) => (true, rest),
        None => (false, modifier.as_str()),
    };
    let set = value
        .as_ref()
        .is_some_and(|value| !(empty_counts && value.is_empty()));
    let other = |text: &str| word(text, '\\', lookup);
    match operator.chars().next() {
        None if !empty_counts => Ok(value.unwrap_or_default()),
        Some('-') if set => Ok(value.unwrap_or_default()),
        Some('-') => other(&operator[1..]),
        Some('+') if set => other(&operator[1..]),
        Some('+') => Ok(String::new()),
        Some('?') if set => Ok(value.unwrap_or_default()),
        Some('?') => {
            let why = other(&operator[1..])?;
            let why = if why.is_empty() {
                "not allowed to be unset".into()
            } else {
                why
            };
            Err(Error::instruction(format!("{name}: {why}")))
        }
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(name: &str) -> Option<String> {
        match name {
            "A" => Some("one".into()),
            "E" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn variables_and_quotes_are_those_of_dockerfiles() {
        for (text, expected) in [
            ("$A", "one"),
            ("${A}x", "onex"),
            ("$B", ""),
            ("${B:-two}", "two"),
            ("${E:-two}", "two"),
            ("${E-two}", ""),
            ("${A:+yes}", "yes"),
            ("${B:+yes}", ""),
            ("${B:-${A}}", "one"),
            ("'$A'", "$A"),
            ("\"$A b\"", "one b"),
            (r"\$A", "$A"),
            (r#""a\"b""#, "a\"b"),
            ("a $A", "a one"),
        ] {
            assert_eq!(word(text, '\\', &look).unwrap(), expected, "{text}");
        }
        assert_eq!(
            words("a \"b c\" '' $A", '\\', &look).unwrap(),
            ["a", "b c", "", "one"]
        );
        assert!(word("'a", '\\', &look).is_err());
        assert!(word("${A", '\\', &look).is_err());
        assert!(
            word("${B:?no}", '\\', &look)
                .unwrap_err()
                .to_string()
                .contains("B: no")
        );
    }
}
