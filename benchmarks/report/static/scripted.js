// Scripts run here, so nothing is missing.
document.getElementById("scriptless").remove();
