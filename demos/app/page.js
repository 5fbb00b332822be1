// What Gradio's blocks cannot do: follow and move the player, send files and camera pictures.
(() => {
  "use strict";
  const TAB = "mmkv-tab";
  const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
  const find = (id) => document.getElementById(id);

  function tab() {
    let name = sessionStorage.getItem(TAB);
    if (!name) {
      const bytes = crypto.getRandomValues(new Uint8Array(24));
      name = Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
      sessionStorage.setItem(TAB, name);
    }
    return name;
  }

  function post(what, body, headers = {}) {
    return fetch("mmkv/" + what, {
      method: "POST", body, headers: { "X-Mmkv-Tab": tab(), ...headers },
    });
  }

  function say(text) {
    const note = find("mm-note");
    if (note) { note.textContent = text; note.hidden = !text; }
  }

  // --- the player

  let furthest = 0, token = "", broken = false;
  const video = () => find("mm-video");

  function state() {
    const v = video();
    if (!v || v.dataset.camera) {
      const live = !!find("mm-live") && document.visibilityState === "visible";
      const shown = document.querySelector("#mm-screen [data-token]")?.dataset.token || "";
      return { token: shown, time: 0, furthest: 0, playing: live, rush: false };
    }
    return {
      token, furthest, time: v.currentTime || 0,
      playing: !v.paused && !v.ended, rush: v.ended || broken,
    };
  }

  function moved() {
    const v = video(), line = document.querySelector(".mm-timeline[data-duration]");
    if (!v || v.dataset.camera) return;
    furthest = Math.max(furthest, v.currentTime);
    if (!line) return;
    const share = Math.min(100, 100 * v.currentTime / line.dataset.duration);
    document.documentElement.style.setProperty("--mm-play", share + "%");
  }

  function seek(seconds) {
    const v = video();
    if (!v || v.dataset.camera) return false;
    v.currentTime = seconds;
    v.pause();
    v.scrollIntoView({ block: "nearest", behavior: "smooth" });
    return true;
  }

  function adopt(v) {
    token = v.closest("[data-token]").dataset.token;
    broken = false;
    if (v.dataset.camera) return attach(v);
    furthest = Number(v.dataset.furthest) || 0;
    const start = Number(v.dataset.start) || 0;
    if (start) v.addEventListener("loadedmetadata", () => { v.currentTime = start; }, { once: true });
    for (const event of ["timeupdate", "seeked", "ended", "loadedmetadata"]) {
      v.addEventListener(event, moved);
    }
    const failed = () => {
      if (v !== video()) return;
      broken = true;
      say("This browser cannot play the file; the model watches it all the same.");
    };
    v.addEventListener("error", failed);
    v.querySelector("source")?.addEventListener("error", failed);
    stopCamera();
  }

  // --- files

  async function place() {
    for (;;) {
      const answer = await post("place");
      if (!answer.ok) throw new Error("The page is out of date; reload it.");
      const { position } = await answer.json();
      if (!position) { say(""); return; }
      say(`Busy, position ${position}. Keep this page open; it continues by itself.`);
      await sleep(1500);
    }
  }

  function send(file) {
    return new Promise((done, fail) => {
      const request = new XMLHttpRequest();
      request.open("POST", "mmkv/upload");
      request.setRequestHeader("X-Mmkv-Tab", tab());
      request.setRequestHeader("X-Mmkv-Name", encodeURIComponent(file.name));
      request.upload.onprogress = (event) =>
        say(`Sending ${file.name}: ${Math.floor(100 * event.loaded / Math.max(1, event.total))} %`);
      request.onload = () => {
        let reply = {};
        try { reply = JSON.parse(request.responseText); } catch { /* said below */ }
        if (request.status === 200) done(reply);
        else fail(new Error(reply.error || "The file could not be sent."));
      };
      request.onerror = () => fail(new Error("The connection was lost while sending; try again."));
      request.send(file);
    });
  }

  async function take(file) {
    if (!file) return;
    const most = Number(document.querySelector("[data-most]")?.dataset.most);
    if (most && file.size > most) {
      say(`${file.name} is larger than the ${Math.floor(most / 1e6)} MB that this server allows.`);
      return;
    }
    try {
      await place();
      await send(file);
      say("");
    } catch (error) {
      say(error.message);
    }
  }

  function upload() {
    const input = find("mm-file");
    input.value = "";
    input.click();
  }

  // --- the camera

  let stream = null, sending = null;

  function stopCamera() {
    clearInterval(sending);
    sending = null;
    stream?.getTracks().forEach((track) => track.stop());
    stream = null;
  }

  async function open() {
    if (!navigator.mediaDevices?.getUserMedia) {
      say("Browsers allow the camera only on pages over https, or on localhost.");
      return false;
    }
    try {
      stream ??= await navigator.mediaDevices.getUserMedia({
        video: { width: { ideal: 640 }, facingMode: "environment" }, audio: false,
      });
      return true;
    } catch (error) {
      say(`The camera could not be opened: ${error.message}`);
      return false;
    }
  }

  async function camera() {
    if (!(await open())) return;
    try {
      await place();
      const answer = await post("camera");
      if (!answer.ok) throw new Error((await answer.json()).error);
    } catch (error) {
      stopCamera();
      say(error.message);
    }
  }

  async function attach(v) {
    if (!(await open())) return;
    v.srcObject = stream;
    const canvas = document.createElement("canvas");
    let busy = false;
    clearInterval(sending);
    sending = setInterval(() => {
      if (busy || !v.videoWidth || !v.isConnected) return;
      const scale = Math.min(1, 640 / v.videoWidth);
      canvas.width = Math.round(v.videoWidth * scale);
      canvas.height = Math.round(v.videoHeight * scale);
      canvas.getContext("2d").drawImage(v, 0, 0, canvas.width, canvas.height);
      busy = true;
      canvas.toBlob(async (blob) => {
        try { if (blob) await post("picture", blob); } catch { /* the next one may pass */ }
        busy = false;
      }, "image/jpeg", 0.85);
    }, 1000 / Number(v.dataset.fps || 1));
  }

  // --- the page

  document.addEventListener("click", (event) => {
    const found = event.target.closest?.("[data-seek]");
    if (!found) {
      const line = event.target.closest?.(".mm-bar");
      const whole = line?.closest("[data-duration]");
      if (whole && whole.dataset.live !== "true") {
        const box = line.getBoundingClientRect();
        seek((event.clientX - box.left) / box.width * Number(whole.dataset.duration));
      }
      return;
    }
    if (seek(Number(found.dataset.seek))) return;
    const picture = found.querySelector("img"), large = find("mm-large");
    if (picture && large) {
      large.querySelector("img").src = picture.src;
      large.showModal();
    }
  });
  document.addEventListener("change", (event) => {
    if (event.target.id === "mm-file") take(event.target.files[0]);
  });
  for (const kind of ["dragover", "drop"]) {
    document.addEventListener(kind, (event) => {
      if (!event.target.closest?.("#mm-drop")) return;
      event.preventDefault();
      if (kind === "drop") take(event.dataTransfer.files[0]);
    });
  }

  let shown = null;
  new MutationObserver(() => {
    const v = video(), hint = find("mm-no-camera");
    if (hint?.hidden && !window.isSecureContext) hint.hidden = false;
    if (v === shown) return;
    shown = v;
    if (v) adopt(v);
    else { token = ""; stopCamera(); }
  }).observe(document.documentElement, { childList: true, subtree: true });

  window.mmkv = { tab, state, upload, camera };
})();
