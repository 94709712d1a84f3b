/** Something that went wrong, in words for the person in front of the page. */
export class Trouble extends Error {
  /**
   * @param {string} title what happened, in a few words
   * @param {string} advice what it means and what to do
   * @param {{again?: boolean, key?: boolean}} cure whether the same may work later, or with a key of the service
   */
  constructor(title, advice, { again = false, key = false } = {}) {
    super(title);
    this.advice = advice;
    this.again = again;
    this.key = key;
  }
}
