if (event.shiftKey) return;  /* moves the picture instead, see look.js */
/* Marks the cells that the pointer passes; at last puts "name cell,cell time" into the viewer's hidden field. */
const i = this, n = +i.dataset.grid, b = i.getBoundingClientRect(), seen = [], marks = [];
const mark = e => {
  const c = Math.floor((e.clientX - b.left) / b.width * n), r = Math.floor((e.clientY - b.top) / b.height * n);
  if (c < 0 || r < 0 || c >= n || r >= n || seen.includes(r * n + c)) return;
  seen.push(r * n + c);
  const d = document.createElement('div'), q = 100 / n;
  d.style.cssText = `position:absolute;pointer-events:none;background:#fff9;left:${c * q}%;top:${r * q}%;` +
    `width:${q}%;height:${q}%`;
  i.parentNode.append(d);
  marks.push(d);
};
event.preventDefault();
i.setPointerCapture(event.pointerId);
i.onpointermove = mark;
mark(event);
i.onpointerup = () => {
  i.onpointermove = i.onpointerup = null;
  setTimeout(() => marks.forEach(d => d.remove()), 500);
  const t = i.closest('.fusmae-viewer').querySelector('.fusmae-painted input');
  t.value = `${i.dataset.name} ${seen} ${Date.now()}`;
  t.dispatchEvent(new Event('input', {bubbles: true}));
};
