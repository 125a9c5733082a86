"use strict";

(() => {
  const files = document.body.dataset.files;
  const byId = (id) => document.getElementById(id);

  // Slices of a case: one file holds all pictures of a slice.
  for (const slider of document.querySelectorAll("input.slice")) {
    const slices = JSON.parse(slider.dataset.slices);
    const images = slider.closest(".slices").querySelectorAll(".panel img");
    const show = () => {
      const { file, number } = slices[slider.valueAsNumber];
      for (const image of images) {
        image.alt = image.alt.replace(/^Slice \d+/, `Slice ${number}`);
        image.src = `${files}/${file}`;
      }
      byId(slider.getAttribute("aria-describedby")).value = number;
      slider.setAttribute("aria-valuetext", `slice ${number}`);
    };
    slider.addEventListener("input", show);
    show(); // a browser may keep the slider where it was before a reload
  }

  // The expected error, laid over the result.
  for (const box of document.querySelectorAll("input.overlay")) {
    const slices = box.closest(".slices"), fade = slices.querySelector("input.fade");
    const lay = () => {
      for (const part of slices.querySelectorAll(".error")) part.hidden = !box.checked;
      slices.querySelector("img.error").style.opacity = fade.valueAsNumber / 100;
      fade.disabled = !box.checked;
      byId(fade.getAttribute("aria-describedby")).value = `${fade.value} %`;
    };
    for (const control of [box, fade]) control.addEventListener("input", lay);
    lay();
  }

  // The viewer: three NiiVue canvases on one grid.
  const ROLES = ["target", "reference", "result"];
  const AXES = { sagittal: 0, coronal: 1, axial: 2 };
  const dialog = byId("viewer"), plane = byId("viewer_plane"), slider = byId("viewer_slice"), state = byId("viewer_state");
  const scripts = new Map();
  let viewers = null, shown = null, wanted = null;

  // A page opened from a folder may not fetch files, but it may load scripts.
  const script = (path) => {
    if (!scripts.has(path)) {
      scripts.set(path, new Promise((resolve, reject) => {
        const element = document.createElement("script");
        element.src = `${files}/${path}`;
        element.onload = resolve;
        element.onerror = () => { scripts.delete(path); reject(new Error(`${element.src} is missing or cannot be read`)); };
        document.head.append(element);
      }));
    }
    return scripts.get(path);
  };

  const start = async () => {
    const { Niivue, DRAG_MODE } = globalThis.niivue;
    const made = ROLES.map(() => new Niivue({
      logLevel: "error", loadingText: "", dragAndDropEnabled: false, isRadiologicalConvention: true, backColor: [0, 0, 0, 1],
      crosshairWidth: 0.7, crosshairWidthUnit: "percent", crosshairColor: [0.35, 0.75, 1, 0.6], dragMode: DRAG_MODE.contrast, viewModeHotKey: "", clipPlaneHotKey: "",
      multiplanarShowRender: 0,
    }));
    await Promise.all(made.map((viewer, i) => viewer.attachToCanvas(byId(`viewer_${ROLES[i]}`))));
    made.forEach((viewer) => {
      viewer.broadcastTo(made.filter((other) => other !== viewer), { "2d": true, "3d": true });
      viewer.onLocationChange = () => follow(viewer);
    });
    return made;
  };

  const axis = () => AXES[plane.value === "all" ? shown.plane : plane.value];
  const active = () => viewers.filter((viewer) => viewer.volumes.length);
  const depth = () => active()[0].volumes[0].dimsRAS[1 + axis()];

  const label = () => {
    const place = slider.valueAsNumber;
    const through = axis() === AXES[shown.plane];
    const number = 1 + (through ? shown.first + (shown.flipped ? depth() - 1 - place : place) : place);
    byId("viewer_index").value = number;
    slider.setAttribute("aria-valuetext", `slice ${number}`);
  };

  // The crosshair was moved in a picture.
  const follow = (viewer) => {
    if (!shown || !viewer.volumes.length) return;
    slider.value = Math.min(Math.floor(viewer.scene.crosshairPos[axis()] * depth()), depth() - 1);
    label();
  };

  const leaf = () => {
    for (const viewer of active()) {
      viewer.scene.crosshairPos[axis()] = (slider.valueAsNumber + 0.5) / depth();
      viewer.drawScene();
    }
    label();
  };

  const turn = () => {
    for (const viewer of active()) {
      const kinds = { axial: viewer.sliceTypeAxial, coronal: viewer.sliceTypeCoronal, sagittal: viewer.sliceTypeSagittal, all: viewer.sliceTypeMultiplanar };
      viewer.setSliceType(kinds[plane.value]);
    }
    slider.max = depth() - 1;
    follow(active()[0]);
  };

  const load = async (key, file) => {
    await Promise.all([script("niivue.umd.js"), script(file)]);
    viewers ??= await start();
    if (wanted !== key) return; // closed, or another case was opened meanwhile
    const content = globalThis.hftnVolumes[key];
    for (const [i, role] of ROLES.entries()) {
      while (viewers[i].volumes.length) viewers[i].removeVolume(viewers[i].volumes[0]);
      dialog.querySelector(`[data-role="${role}"]`).hidden = !content.volumes[role];
      if (content.volumes[role]) {
        viewers[i].addVolume(await globalThis.niivue.NVImage.loadFromBase64({ base64: content.volumes[role], name: `${role}.nii.gz` }));
      }
    }
    shown = content;
    plane.value = content.plane;
    for (const viewer of active()) viewer.scene.crosshairPos = [0.5, 0.5, 0.5];
    turn();
    slider.value = Math.floor(depth() / 2);
    leaf();
    for (const control of [slider, plane]) control.disabled = false;
    slider.focus();
  };

  for (const button of document.querySelectorAll("button.open")) {
    button.addEventListener("click", async () => {
      const { key, file, name } = button.dataset;
      wanted = key;
      shown = null;
      for (const control of [slider, plane]) control.disabled = true;
      byId("viewer_name").textContent = name;
      state.textContent = "Loading …";
      dialog.dataset.ready = "";
      dialog.showModal();
      try {
        await load(key, file);
        state.textContent = "";
        dialog.dataset.ready = key;
      } catch (error) {
        state.textContent = `The viewer cannot be shown: ${error.message}`;
      }
    });
  }
  slider.addEventListener("input", leaf);
  plane.addEventListener("change", turn);
  byId("viewer_close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => { wanted = null; });
})();
