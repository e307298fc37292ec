//! Settings on the command line.

use std::path::PathBuf;
use std::process::ExitCode;

use longshore_host_api::settings::Stored;
use longshore_host_api::{ApiError, Client};
use serde_json::Value;

use crate::options::SettingsCommand;
use crate::progress::{absolute, follow};

pub async fn run(client: &Client, command: SettingsCommand) -> Result<ExitCode, ApiError> {
    match command {
        SettingsCommand::Get { key, json } => get(client, key, json).await?,
        SettingsCommand::Set { assignments } => set(client, assignments).await?,
        SettingsCommand::MoveData { folder } => move_data(client, folder).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn move_data(client: &Client, folder: PathBuf) -> Result<(), ApiError> {
    let absolute = std::path::absolute(&folder)
        .map_err(|e| ApiError::invalid(format!("{}: {e}", folder.display())))?;
    follow(client.move_data(absolute.clone()).await?).await?;
    println!("The data is in {}.", absolute.display());
    Ok(())
}

async fn get(client: &Client, key: Option<String>, json: bool) -> Result<(), ApiError> {
    let settings = client.settings().await?;
    let Some(key) = key else {
        if json {
            println!("{:#}", Value::Object(settings));
        } else {
            for (key, value) in &settings {
                println!("{key}={}", text(value));
            }
        }
        return Ok(());
    };
    match settings.get(&key) {
        Some(value) if json => println!("{value}"),
        Some(value) => println!("{}", text(value)),
        // An empty assignment changes nothing, and its error has the suggestion.
        None => {
            let error = Stored::default().assign(&format!("{key}=")).err();
            return Err(ApiError::invalid(error.map_or(key, |e| e.to_string())));
        }
    }
    Ok(())
}

async fn set(client: &Client, assignments: Vec<String>) -> Result<(), ApiError> {
    // The service does not know in which folder the user stands.
    let assignments = assignments
        .into_iter()
        .map(|text| match text.split_once("+=") {
            Some(("shares", path)) => Ok(format!("shares+={}", absolute(path)?)),
            _ => Ok(text),
        })
        .collect::<Result<Vec<_>, ApiError>>()?;
    // What is wrong in itself is told without a service.
    let mut scratch = Stored::default();
    for assignment in assignments.iter().filter(|a| !a.contains("-=")) {
        scratch
            .assign(assignment)
            .map_err(|e| ApiError::invalid(e.to_string()))?;
    }
    for notice in client.change_settings(assignments).await?.notices {
        eprintln!("{notice}");
    }
    Ok(())
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}
