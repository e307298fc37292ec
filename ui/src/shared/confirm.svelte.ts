// One question at a time, asked before something goes.

export interface Question {
  title: string;
  text: string;
  /** The names of what goes. */
  items: string[];
  action: string;
  /** A choice that goes with the answer. */
  option?: { label: string; checked: boolean };
}

interface Asked extends Question {
  answer: (yes: boolean) => void;
}

class Confirm {
  asked = $state<Asked>();

  /** Resolves to false when the user thinks better of it. */
  ask(question: Question): Promise<boolean> {
    this.asked?.answer(false);
    return new Promise((resolve) => {
      this.asked = {
        ...question,
        answer: (yes) => {
          question.option && this.asked?.option && (question.option.checked = this.asked.option.checked);
          this.asked = undefined;
          resolve(yes);
        },
      };
    });
  }
}

export const confirm = new Confirm();
