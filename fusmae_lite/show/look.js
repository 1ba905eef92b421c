/* Zooms and moves all panels of the ground alike, and puts the point that the pointer or the arrow keys are at, in shares
   of width and height, into the viewer's hidden field. All is kept at the viewer: its page may be drawn again. */
const v = this.closest('.fusmae-viewer');
if (v && !v.look) {
  const s = v.look = {z: 1, x: 0, y: 0, p: [.5, .5]};
  const between = (n, low, high) => Math.min(high, Math.max(low, n));
  const show = () => {
    s.x = between(s.x, 1 - s.z, 0);
    s.y = between(s.y, 1 - s.z, 0);
    v.classList.toggle('fusmae-zoomed', s.z > 1);
    for (const k of 'zxy') v.style.setProperty('--' + k, s[k]);
    v.style.setProperty('--px', s.p[0]);
    v.style.setProperty('--py', s.p[1]);
  };
  const at = (e, g = e.target.closest('.fusmae-ground')) => {
    if (!g) return;
    const b = g.getBoundingClientRect();
    return [(e.clientX - b.left) / b.width, (e.clientY - b.top) / b.height];
  };
  const tell = p => {
    s.p = p.map(n => between(n, 0, .9999));
    show();
    clearTimeout(s.late);
    s.late = setTimeout(() => {
      const t = v.querySelector('.fusmae-pointed input');
      t.value = `${s.p}`;
      t.dispatchEvent(new Event('input', {bubbles: true}));
    }, 50);
  };
  const zoom = (f, [a, b]) => {
    const z = between(s.z * f, 1, 16);
    s.x = a - (a - s.x) * z / s.z;
    s.y = b - (b - s.y) * z / s.z;
    s.z = z;
    show();
  };
  const hear = (kind, answer) => v.addEventListener(kind, answer, {passive: false});
  hear('wheel', e => {
    const p = at(e);
    if (!p || !e.ctrlKey && !e.metaKey) return;
    e.preventDefault();
    zoom(e.deltaY < 0 ? 1.25 : .8, p);
  });
  hear('pointerdown', e => {
    const p = at(e);
    if (!p || s.z == 1 || e.target.dataset.grid && !e.shiftKey) return;
    e.preventDefault();
    s.from = p;
    s.panel = e.target.closest('.fusmae-ground');
  });
  hear('pointermove', e => {
    if (!e.buttons) s.from = s.panel = undefined;
    const p = at(e, s.panel);
    if (!p) return;
    if (s.from) {
      s.x += p[0] - s.from[0];
      s.y += p[1] - s.from[1];
      s.from = p;
      show();
    } else tell([(p[0] - s.x) / s.z, (p[1] - s.y) / s.z]);
  });
  hear('dblclick', e => {
    const p = at(e);
    if (p && !e.target.dataset.grid) zoom(0, p);
  });
  hear('keydown', e => {
    const page = e.target.closest('.fusmae-page');
    const n = page && 1 / page.dataset.side;
    const step = {ArrowLeft: [-n, 0], ArrowRight: [n, 0], ArrowUp: [0, -n], ArrowDown: [0, n]}[e.key];
    const factor = {'+': 1.25, '=': 1.25, '-': .8, '0': 0}[e.key];
    if (!page || !step && factor === undefined) return;
    e.preventDefault();
    if (step) tell(s.p.map((q, i) => q + step[i]));
    else zoom(factor, [s.p[0] * s.z + s.x, s.p[1] * s.z + s.y]);
  });
}
