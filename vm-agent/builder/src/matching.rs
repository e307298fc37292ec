//! Source patterns of COPY and ADD: Go's `filepath.Match`, component by component.

/// Whether a path's component matches: `*`, `?`, `[a-z]`, `\x`.
pub fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    part(&pattern, &name)
}

pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

fn part(pattern: &[char], name: &[char]) -> bool {
    match (pattern.first(), name.first()) {
        (None, None) => true,
        (Some('*'), _) => {
            // A run of stars is one star: no exponential search.
            let rest = pattern
                .iter()
                .position(|c| *c != '*')
                .map_or(&[][..], |at| &pattern[at..]);
            (0..=name.len()).any(|skip| part(rest, &name[skip..]))
        }
        (Some('?'), Some(_)) => part(&pattern[1..], &name[1..]),
        (Some('['), Some(c)) => match class(&pattern[1..], *c) {
            Some((true, rest)) => part(rest, &name[1..]),
            _ => false,
        },
        (Some('\\'), Some(c)) if pattern.get(1) == Some(c) => part(&pattern[2..], &name[1..]),
        (Some(p), Some(c)) if p == c => part(&pattern[1..], &name[1..]),
        _ => false,
    }
}

/// Whether `c` is in the class, and what follows its bracket.
fn class(pattern: &[char], c: char) -> Option<(bool, &[char])> {
    let end = pattern.iter().skip(1).position(|c| *c == ']')? + 1;
    let (negated, inside) = match pattern[..end].first() {
        Some('^') => (true, &pattern[1..end]),
        _ => (false, &pattern[..end]),
    };
    let (mut found, mut at) = (false, 0);
    while at < inside.len() {
        if inside.get(at + 1) == Some(&'-') && at + 2 < inside.len() {
            found |= (inside[at]..=inside[at + 2]).contains(&c);
            at += 3;
        } else {
            found |= inside[at] == c;
            at += 1;
        }
    }
    Some((found != negated, &pattern[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (pattern, name, expected) in [
            ("*.txt", "a.txt", true),
            ("*.txt", "a.md", false),
            ("a?c", "abc", true),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("**********b", "aaaaaaaaaaaaaaaaaaaaaaaa", false),
            ("plain", "plain", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
