//! Who a container's process is: `--user` looked up in the image's own passwd and group files.

use crate::error::{ApiError, ApiResult};
use serde::Serialize;

/// OCI `process.user`.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub additional_gids: Vec<u32>,
    /// For `HOME`; not part of the OCI's user.
    #[serde(skip)]
    pub home: String,
}

/// The files of a root file system that name people; empty when it has none.
#[derive(Debug, Default, Clone)]
pub struct Accounts {
    pub passwd: String,
    pub group: String,
}

const LARGEST_ID: u32 = i32::MAX as u32;

impl Accounts {
    /// `spec` is `""`, `user`, `uid`, `user:group`, …; `extra` are `--group-add`'s.
    pub fn look_up(&self, spec: &str, extra: &[String]) -> ApiResult<User> {
        let (name, group) = spec
            .split_once(':')
            .map_or((spec, None), |(name, group)| (name, Some(group)));
        let name = if name.is_empty() { "0" } else { name };
        let found = self.passwd_line(name);
        let mut user = match (&found, numeric(name)) {
            (Some(line), _) => User {
                uid: line.uid,
                gid: line.gid,
                home: line.home.to_owned(),
                ..User::default()
            },
            (None, Some(uid)) => User {
                uid,
                home: "/".to_owned(),
                ..User::default()
            },
            (None, None) => {
                return Err(ApiError::internal(format!(
                    "unable to find user {name}: no matching entries in passwd file"
                )));
            }
        };
        match group.filter(|group| !group.is_empty()) {
            Some(group) => user.gid = self.group_id(group)?,
            // Further groups come with the account, unless a group was named.
            None => {
                user.additional_gids =
                    found.map_or_else(Vec::new, |line| self.memberships(line.name))
            }
        }
        user.additional_gids.insert(0, user.gid);
        for group in extra {
            user.additional_gids.push(self.group_id(group)?);
        }
        let mut seen = std::collections::BTreeSet::new();
        user.additional_gids.retain(|gid| seen.insert(*gid));
        Ok(user)
    }

    fn passwd_line(&self, wanted: &str) -> Option<PasswdLine<'_>> {
        let number = numeric(wanted);
        let lines = || self.passwd.lines().filter_map(PasswdLine::parse);
        lines()
            .find(|line| line.name == wanted)
            .or_else(|| lines().find(|line| Some(line.uid) == number))
    }

    fn group_id(&self, wanted: &str) -> ApiResult<u32> {
        let named = self
            .groups()
            .find(|(name, _, _)| *name == wanted)
            .map(|(_, gid, _)| gid);
        named.or_else(|| numeric(wanted)).ok_or_else(|| {
            ApiError::internal(format!(
                "unable to find group {wanted}: no matching entries in group file"
            ))
        })
    }

    fn memberships(&self, user: &str) -> Vec<u32> {
        self.groups()
            .filter(|(_, _, members)| members.split(',').any(|member| member == user))
            .map(|(_, gid, _)| gid)
            .collect()
    }

    fn groups(&self) -> impl Iterator<Item = (&str, u32, &str)> {
        self.group.lines().filter_map(|line| {
            let mut parts = line.splitn(4, ':');
            let (name, _, gid) = (parts.next()?, parts.next()?, parts.next()?);
            Some((name, gid.parse().ok()?, parts.next().unwrap_or_default()))
        })
    }
}

struct PasswdLine<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> PasswdLine<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let parts: Vec<&str> = line.split(':').collect();
        match parts.as_slice() {
            [name, _, uid, gid, _, home, ..] if !name.is_empty() => Some(PasswdLine {
                name,
                uid: uid.parse().ok()?,
                gid: gid.parse().ok()?,
                home,
            }),
            _ => None,
        }
    }
}

fn numeric(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id <= LARGEST_ID)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_the_images() {
        let accounts = Accounts {
            passwd: "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001::/home/web:/bin/sh\nbroken\n"
                .into(),
            group: "root:x:0:\nwheel:x:10:root,web\ngrp:x:2000:web\n".into(),
        };
        type Expected<'a> = Result<(u32, u32, &'a [u32], &'a str), &'a str>;
        let table: [(&str, &[&str], Expected); 9] = [
            ("", &[], Ok((0, 0, &[0, 10], "/root"))),
            ("web", &[], Ok((1000, 1001, &[1001, 10, 2000], "/home/web"))),
            (
                "1000",
                &[],
                Ok((1000, 1001, &[1001, 10, 2000], "/home/web")),
            ),
            ("1000:5", &[], Ok((1000, 5, &[5], "/home/web"))),
            ("web:grp", &[], Ok((1000, 2000, &[2000], "/home/web"))),
            ("4242", &[], Ok((4242, 0, &[0], "/"))),
            ("4242", &["grp", "7"], Ok((4242, 0, &[0, 2000, 7], "/"))),
            (
                "zz",
                &[],
                Err("unable to find user zz: no matching entries in passwd file"),
            ),
            (
                "web:zz",
                &[],
                Err("unable to find group zz: no matching entries in group file"),
            ),
        ];
        for (spec, extra, expected) in table {
            let extra: Vec<String> = extra.iter().map(|group| (*group).to_owned()).collect();
            match (accounts.look_up(spec, &extra), expected) {
                (Ok(user), Ok((uid, gid, groups, home))) => {
                    let got = (
                        user.uid,
                        user.gid,
                        user.additional_gids.as_slice(),
                        user.home.as_str(),
                    );
                    assert_eq!(got, (uid, gid, groups, home), "{spec}");
                }
                (Err(error), Err(message)) => assert_eq!(error.message, message, "{spec}"),
                (got, _) => panic!("{spec}: {got:?}"),
            }
        }
        assert_eq!(Accounts::default().look_up("", &[]).unwrap().uid, 0);
    }
}
