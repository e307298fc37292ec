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
