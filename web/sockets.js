// Colours of the pack's own sockets and links, in the classic and the newer rendering of nodes.
import { app } from "../../scripts/app.js";

const COLOURS = {
  VIPAINT_OBSERVATION: "#FF00AA",
  VIPAINT_POSTERIOR: "#009C87",
  VIPAINT_STITCH: "#A28C00",
};

// A change of theme empties what its palette does not name; a colour that the palette does name wins.
function colourUnlessNamed(table, type, colour) {
  let named = table[type];
  Object.defineProperty(table, type, {
    configurable: true,
    enumerable: true,
    get: () => named || colour,
    set: (value) => {
      named = value;
    },
  });
}

app.registerExtension({
  name: "VIPaint.Sockets",
  setup() {
    const style = document.createElement("style");
    const rules = Object.entries(COLOURS).map(([type, colour]) => `--color-datatype-${type}: ${colour};`);
    style.textContent = `:root { ${rules.join(" ")} }`;
    document.head.append(style);
    for (const [type, colour] of Object.entries(COLOURS)) {
      colourUnlessNamed(app.canvas.default_connection_color_byType, type, colour);
      colourUnlessNamed(app.canvas.constructor.link_type_colors, type, colour);
    }
  },
});
