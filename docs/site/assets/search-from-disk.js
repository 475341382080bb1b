// Browsers start no worker from a file on disk. The search's worker then runs in a hidden frame and speaks to it
// by messages, as a worker would: what is said is copied.
if (location.protocol === "file:") {
  const message = (data) => new MessageEvent("message", { data: structuredClone(data) });
  window.Worker = class extends EventTarget {
    constructor(script) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const inside = this.frame.contentWindow;
      inside.postMessage = (data) => {
        const event = message(data);
        this.dispatchEvent(event);
        this.onmessage?.(event);
      };
      inside.importScripts = (...urls) => urls.reduce((before, url) => before.then(() => this.load(url)), Promise.resolve());
      this.ready = this.load(new URL(script, location.href));
    }
    load(url) {
      return new Promise((done, failed) => {
        const element = this.frame.contentDocument.createElement("script");
        Object.assign(element, { src: url, onload: done, onerror: failed });
        this.frame.contentDocument.body.append(element);
      });
    }
    postMessage(data) {
      this.ready.then(() => this.frame.contentWindow.dispatchEvent(message(data)));
    }
    terminate() {
      this.frame.remove();
    }
  };
}
