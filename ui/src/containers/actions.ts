// What can be done to containers, with the questions that come first.
import type { ContainerRow } from '../api/docker';
import { confirm } from '../shared/confirm.svelte';
import { plural } from '../shared/format';
import { containers, type Verb } from './containers.svelte';
import { isRunning, nameOf } from './rows';

/** The verbs that do something to at least one of them. */
export function possible(list: ContainerRow[]): Set<Verb> {
  const verbs = new Set<Verb>();
  for (const container of list) {
    if (container.State === 'paused') verbs.add('unpause');
    if (container.State === 'running') verbs.add('pause');
    if (isRunning(container)) ['stop', 'restart', 'kill'].forEach((v) => verbs.add(v as Verb));
    else verbs.add('start');
    verbs.add('delete');
  }
  return verbs;
}

function concerned(list: ContainerRow[], verb: Verb): ContainerRow[] {
  return list.filter((container) => possible([container]).has(verb));
}

/** Asks where something would be lost, then acts. `what` names the group or the selection. */
export async function act(list: ContainerRow[], verb: Verb, what?: string): Promise<void> {
  const chosen = concerned(list, verb);
  if (chosen.length === 0) return;
  let volumes = false;
  if (verb === 'delete') {
    const running = chosen.filter(isRunning).length;
    const option = { label: 'Delete their anonymous volumes too', checked: false };
    const question = {
      title: what ? `Delete ${what}?` : `Delete ${plural(chosen.length, 'container')}?`,
      text: `What was written inside ${chosen.length === 1 ? 'the container' : 'them'} is lost; named volumes stay.${
        running > 0 ? ` ${chosen.length === 1 ? 'It is' : running === 1 ? 'One of them is' : `${running} of them are`} running and will be killed.` : ''
      }`,
      items: chosen.map(nameOf),
      action: chosen.length === 1 ? 'Delete' : `Delete ${chosen.length}`,
      option,
    };
    if (!(await confirm.ask(question))) return;
    volumes = option.checked;
  } else if (chosen.length > 1 && (verb === 'stop' || verb === 'restart')) {
    const word = verb === 'stop' ? 'Stop' : 'Restart';
    const question = {
      title: `${word} ${what ?? plural(chosen.length, 'container')}?`,
      text: 'Each gets a moment to end by itself.',
      items: chosen.map(nameOf),
      action: `${word} ${chosen.length}`,
    };
    if (!(await confirm.ask(question))) return;
  }
  await containers.act(chosen.map((c) => c.Id), verb, volumes);
}
