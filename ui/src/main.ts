import './shared/tokens.css';
import './shared/base.css';
import { mount } from 'svelte';
import App from './frame/App.svelte';
import { theme } from './shared/theme.svelte';

theme.apply();
mount(App, { target: document.getElementById('app')! });
