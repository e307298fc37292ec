// The one backend of this page, and what speaks through it.
import { isTauri } from '@tauri-apps/api/core';
import { Docker } from './docker';
import { Host } from './host';
import { HttpBackend } from './http';
import { TauriBackend } from './tauri';

const backend = isTauri() ? new TauriBackend() : new HttpBackend();

export const docker = new Docker(backend);
export const host = new Host(backend);
export const terminal = backend.terminal.bind(backend);
/** A chooser can give a whole folder: WebKitGTK's gives files only, and takes folders that are dropped. */
export const folders = !(isTauri() && navigator.userAgent.includes('Linux'));
