from optical_scale.pages.document import document, label_cell, number_cell, pairs_table, sortable_table


def test_plain_text_is_escaped_and_ready_html_is_not():
    page = document("a < b", ["<p>ready</p>", pairs_table([("x & y", "<1>")])], "td.mine { color: red; }")
    assert "<title>a &lt; b</title>" in page
    assert "<p>ready</p>" in page
    assert "<th scope='row'>x &amp; y</th><td>&lt;1&gt;</td>" in page
    assert "td.mine { color: red; }" in page
    assert label_cell("<b>") == "<th scope='row'>&lt;b&gt;</th>"


def test_cells_are_sorted_by_their_value_and_words_stand_left():
    table = sortable_table(
        ["name", "note", "n<1"], [[label_cell("a"), "<td class='text'>x</td>", number_cell(0.25, "25 %")]], (1,)
    )
    assert "<th scope='col' data-column='1' class=text>note</th>" in table
    assert "<th scope='col' data-column='2'>n&lt;1</th>" in table
    assert '<td data-value="0.25">25 %</td>' in table
    assert number_cell(None, "") == "<td>–</td>"
