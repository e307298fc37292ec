//! The metadata store: protobuf records in a transactional database, keyed by namespace and name.
//!
//! Every record is one of containerd's own messages. A change is one ACID transaction, durable when
//! `write` returns. Nothing here knows what the records mean.

use std::path::Path;
use std::sync::Arc;

use prost::Message;
use redb::{ReadableDatabase, ReadableTable, TableDefinition};

use crate::error::{Error, Result, blocking};

/// A kind of record.
#[derive(Clone, Copy)]
pub struct Table(&'static str);

pub const NAMESPACES: Table = Table("namespaces");
pub const IMAGES: Table = Table("images");
pub const CONTAINERS: Table = Table("containers");
pub const CONTENT: Table = Table("content");
pub const SNAPSHOTS: Table = Table("snapshots");
pub const LEASES: Table = Table("leases");
/// Key: namespace, lease, type and id; the value is empty.
pub const LEASE_RESOURCES: Table = Table("lease-resources");
const COUNTERS: TableDefinition<&str, u64> = TableDefinition::new("counters");

const TABLES: [Table; 7] = [
    NAMESPACES,
    IMAGES,
    CONTAINERS,
    CONTENT,
    SNAPSHOTS,
    LEASES,
    LEASE_RESOURCES,
];

impl Table {
    fn definition(self) -> TableDefinition<'static, &'static str, &'static [u8]> {
        TableDefinition::new(self.0)
    }
}

fn failed(error: impl std::fmt::Display) -> Error {
    Error::Store(error.to_string())
}

fn open_database(path: &Path) -> Result<redb::Database> {
    redb::Builder::new()
        // The working set is a few pages; the default is a gigabyte.
        .set_cache_size(512 * 1024)
        .create(path)
        .map_err(|e| Error::Store(format!("opening {}: {e}", path.display())))
}

/// A new database gets its name when it is one: a file that the power left half made would be refused at every start.
fn make(path: &Path) -> Result<()> {
    let (fresh, folder) = (path.with_extension("new"), path.parent());
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    drop(open_database(&fresh)?);
    std::fs::File::open(&fresh)
        .and_then(|file| file.sync_all())
        .and_then(|()| std::fs::rename(&fresh, path))
        .and_then(|()| std::fs::File::open(folder.unwrap_or(Path::new("/")))?.sync_all())
        .map_err(failed)
}

/// Joins the parts of a key. NUL cannot be in a part: identifiers and references exclude it.
pub fn key(parts: &[&str]) -> String {
    parts.join("\0")
}

#[derive(Clone)]
pub struct Store(Arc<redb::Database>);

impl Store {
    pub fn open(path: &Path) -> Result<Self> {
        if !path.exists() {
            make(path)?;
        }
        let database = open_database(path)?;
        let transaction = database.begin_write().map_err(failed)?;
        for table in TABLES {
            transaction.open_table(table.definition()).map_err(failed)?;
        }
        transaction.open_table(COUNTERS).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        Ok(Self(Arc::new(database)))
    }

    pub fn read(&self) -> Result<Read> {
        Ok(Read(self.0.begin_read().map_err(failed)?))
    }

    /// Runs `change` in one transaction: all of it is kept, durably, or none.
    pub async fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Write) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let store = self.clone();
        blocking(move || store.write_blocking(change)).await
    }

    pub fn write_blocking<T>(&self, change: impl FnOnce(&Write) -> Result<T>) -> Result<T> {
        let write = Write(self.0.begin_write().map_err(failed)?);
        let value = change(&write)?;
        write.0.commit().map_err(failed)?;
        Ok(value)
    }
}

/// Reading, in a snapshot or inside a change.
pub trait Records {
    /// Calls `visit` with key and value of each record whose key starts with `prefix`, until it returns false.
    fn scan(
        &self,
        table: Table,
        prefix: &str,
        visit: &mut dyn FnMut(&str, &[u8]) -> Result<bool>,
    ) -> Result<()>;

    fn raw(&self, table: Table, key: &str) -> Result<Option<Vec<u8>>>;

    fn get<M: Message + Default>(&self, table: Table, key: &str) -> Result<Option<M>> {
        self.raw(table, key)?
            .map(|bytes| M::decode(&bytes[..]).map_err(failed))
            .transpose()
    }

    fn list<M: Message + Default>(&self, table: Table, prefix: &str) -> Result<Vec<(String, M)>> {
        let mut records = Vec::new();
        self.scan(table, prefix, &mut |key, value| {
            records.push((key.to_owned(), M::decode(value).map_err(failed)?));
            Ok(true)
        })?;
        Ok(records)
    }

    fn keys(&self, table: Table, prefix: &str) -> Result<Vec<String>> {
        let mut keys = Vec::new();
        self.scan(table, prefix, &mut |key, _| {
            keys.push(key.to_owned());
            Ok(true)
        })?;
        Ok(keys)
    }

    /// Calls `visit` with each record of a namespace. Unlike [`Records::in_namespace`], it has one of them in memory at a time.
    fn each_in_namespace<M: Message + Default>(
        &self,
        table: Table,
        namespace: &str,
        mut visit: impl FnMut(M),
    ) -> Result<()> {
        self.scan(table, &key(&[namespace, ""]), &mut |_, value| {
            visit(M::decode(value).map_err(failed)?);
            Ok(true)
        })
    }

    /// The records of a namespace, without their keys.
    fn in_namespace<M: Message + Default>(&self, table: Table, namespace: &str) -> Result<Vec<M>> {
        let records = self.list(table, &key(&[namespace, ""]))?;
        Ok(records.into_iter().map(|(_, record)| record).collect())
    }
}

pub struct Read(redb::ReadTransaction);
pub struct Write(redb::WriteTransaction);

fn scan_table(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    prefix: &str,
    visit: &mut dyn FnMut(&str, &[u8]) -> Result<bool>,
) -> Result<()> {
    for record in table.range(prefix..).map_err(failed)? {
        let (key, value) = record.map_err(failed)?;
        if !key.value().starts_with(prefix) || !visit(key.value(), value.value())? {
            break;
        }
    }
    Ok(())
}

fn record_of(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    key: &str,
) -> Result<Option<Vec<u8>>> {
    let record = table.get(key).map_err(failed)?;
    Ok(record.map(|value| value.value().to_vec()))
}

impl Records for Read {
    fn scan(
        &self,
        table: Table,
        prefix: &str,
        visit: &mut dyn FnMut(&str, &[u8]) -> Result<bool>,
    ) -> Result<()> {
        let table = self.0.open_table(table.definition()).map_err(failed)?;
        scan_table(&table, prefix, visit)
    }

    fn raw(&self, table: Table, key: &str) -> Result<Option<Vec<u8>>> {
        let table = self.0.open_table(table.definition()).map_err(failed)?;
        record_of(&table, key)
    }
}

impl Records for Write {
    fn scan(
        &self,
        table: Table,
        prefix: &str,
        visit: &mut dyn FnMut(&str, &[u8]) -> Result<bool>,
    ) -> Result<()> {
        let table = self.0.open_table(table.definition()).map_err(failed)?;
        scan_table(&table, prefix, visit)
    }

    fn raw(&self, table: Table, key: &str) -> Result<Option<Vec<u8>>> {
        let table = self.0.open_table(table.definition()).map_err(failed)?;
        record_of(&table, key)
    }
}

impl Write {
    pub fn put(&self, table: Table, key: &str, record: &impl Message) -> Result<()> {
        let mut table = self.0.open_table(table.definition()).map_err(failed)?;
        table
            .insert(key, record.encode_to_vec().as_slice())
            .map_err(failed)?;
        Ok(())
    }

    /// Whether there was such a record.
    pub fn delete(&self, table: Table, key: &str) -> Result<bool> {
        let mut table = self.0.open_table(table.definition()).map_err(failed)?;
        Ok(table.remove(key).map_err(failed)?.is_some())
    }

    /// The next number of a counter, from 1.
    pub fn next(&self, counter: &str) -> Result<u64> {
        let mut table = self.0.open_table(COUNTERS).map_err(failed)?;
        let next = table
            .get(counter)
            .map_err(failed)?
            .map_or(1, |value| value.value() + 1);
        table.insert(counter, next).map_err(failed)?;
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_power_cut_left_of_a_new_database_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("meta.redb");
        std::fs::write(folder.path().join("meta.new"), [0; 4096]).unwrap();
        for expected in [1, 2] {
            let store = Store::open(&path).unwrap();
            let next = store.write_blocking(|tx| tx.next("snapshot")).unwrap();
            assert_eq!(next, expected);
        }
        assert!(!folder.path().join("meta.new").exists());
    }
}
