//! What the options `labels`, `env` and `tag` of json-file add to each line of a log, for `docker logs --details`.

use super::record::Container;
use regex_lite::Regex;
use std::collections::BTreeMap;

type Attributes = BTreeMap<String, String>;

/// Of a container that starts; or why its options cannot be used.
pub fn of(container: &Container) -> Result<Attributes, String> {
    let options = &container.host_config.log_config.config;
    let labels = container.config.labels.iter();
    let labels: Attributes = labels
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let env = container.config.env.iter().flatten();
    let env: Attributes = env
        .filter_map(|variable| variable.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    let option = |name: &str| options.get(name).map_or("", String::as_str);
    let mut attributes = chosen(&labels, option("labels"), option("labels-regex"))?;
    attributes.append(&mut chosen(&env, option("env"), option("env-regex"))?);
    let tag = render(option("tag"), container)?;
    if !tag.is_empty() {
        attributes.insert("tag".to_owned(), tag);
    }
    Ok(attributes)
}

/// Those that a list with commas names, and those whose names match.
fn chosen(all: &Attributes, names: &str, pattern: &str) -> Result<Attributes, String> {
    let pattern = match pattern {
        "" => None,
        text => Some(Regex::new(text).map_err(|error| format!("error parsing regexp: {error}"))?),
    };
    let is_chosen = |name: &str| {
        names.split(',').any(|listed| listed == name)
            || pattern
                .as_ref()
                .is_some_and(|pattern| pattern.is_match(name))
    };
    let chosen = all.iter().filter(|(name, _)| is_chosen(name));
    Ok(chosen
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect())
}

/// A tag's template: fields of the container between braces, `{{.Name}}/{{.ID}}`. Other actions of Go's templates are refused.
fn render(template: &str, container: &Container) -> Result<String, String> {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, action)) = rest.split_once("{{") {
        let (action, after) = action
            .split_once("}}")
            .ok_or_else(|| "template: log-tag:1: unclosed action".to_owned())?;
        let field = field(action.trim(), container)
            .ok_or_else(|| format!("template: log-tag:1: <{}>: can't evaluate", action.trim()))?;
        text.push_str(before);
        text.push_str(&field);
        rest = after;
    }
    Ok(text + rest)
}

fn field(name: &str, container: &Container) -> Option<String> {
    // Docker cuts the image's id with the name of its algorithm.
    let cut = |id: &str| id.get(..12).unwrap_or(id).to_owned();
    Some(match name {
        ".ID" => cut(&container.id),
        ".FullID" => container.id.clone(),
        ".Name" => container.name.clone(),
        ".ImageID" => cut(&container.image_id),
        ".ImageFullID" => container.image_id.clone(),
        ".ImageName" => container.config.image.clone(),
        ".DaemonName" => "docker".to_owned(),
        ".Hostname" => crate::state::hostname(),
        ".Command" => {
            let words = std::iter::once(&container.path).chain(&container.args);
            words.cloned().collect::<Vec<_>>().join(" ")
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::record::Fixed;
    use super::*;

    fn with(options: &[(&str, &str)]) -> Result<Attributes, String> {
        let mut fixed = Fixed {
            id: "0123456789abcdef".into(),
            name: "web".into(),
            ..Default::default()
        };
        let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        fixed.config.labels = [("a", "1"), ("b", "2"), ("xc", "3")].map(owned).into();
        fixed.config.env = Some(vec!["A=x=y".into(), "BARE".into(), "LOG_B=z".into()]);
        let options = options.iter().copied().map(owned);
        fixed.host_config.log_config.config = options.collect();
        of(&Container::new(fixed, Default::default()))
    }

    #[test]
    fn options_choose_labels_variables_and_a_tag() {
        for (options, expected) in [
            (&[][..], "{}"),
            (&[("labels", "a,nope")], r#"{"a": "1"}"#),
            (
                &[("labels", "a"), ("labels-regex", "^x")],
                r#"{"a": "1", "xc": "3"}"#,
            ),
            (
                &[("env", "A,BARE"), ("env-regex", "^LOG_")],
                r#"{"A": "x=y", "LOG_B": "z"}"#,
            ),
            (
                &[("tag", "t/{{.Name}}/{{ .ID }}")],
                r#"{"tag": "t/web/0123456789ab"}"#,
            ),
        ] {
            assert_eq!(format!("{:?}", with(options).unwrap()), expected);
        }
        for bad in [("tag", "{{.Nope}}"), ("tag", "{{.Name"), ("env-regex", "(")] {
            assert!(with(&[bad]).is_err(), "{bad:?}");
        }
    }
}
